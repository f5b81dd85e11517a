package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// world is what the API server says of subscriptions, as this program's watch shows it.
type world struct {
	mu     sync.Mutex
	states map[client.ObjectKey]state
}

// state is what matters of a subscription.
type state struct {
	ready     bool // Ready=True of the newest generation
	delivered int64
}

func stateOf(sub *v1alpha1.WebhookSubscription) state {
	c := meta.FindStatusCondition(sub.Status.Conditions, v1alpha1.ConditionReady)
	st := state{ready: c != nil && c.Status == metav1.ConditionTrue && c.ObservedGeneration == sub.Generation}
	if counts := sub.Status.Deliveries; counts != nil && counts.Delivered != nil {
		st.delivered = *counts.Delivered
	}
	return st
}

// count is how many of the subscriptions pass.
func (w *world) count(passes func(client.ObjectKey, state) bool) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, st := range w.states {
		if passes(key, st) {
			n++
		}
	}
	return n
}

func (w *world) get(key client.ObjectKey) state {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.states[key]
}

// forget makes what the watch shows next be what counts.
func (w *world) forget(key client.ObjectKey) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.states, key)
}

// watch follows all subscriptions until the run ends.
func (s *stage) watch(ctx context.Context) error {
	s.world = &world{states: make(map[client.ObjectKey]state)}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	s.cleanup(func() error { cancel(); <-done; return nil })
	list := &v1alpha1.WebhookSubscriptionList{}
	if err := s.api.List(ctx, list); err != nil {
		close(done)
		return err
	}
	go func() {
		defer close(done)
		version := list.ResourceVersion
		for ctx.Err() == nil {
			version = s.follow(ctx, version)
		}
	}()
	return nil
}

// follow watches from a version on and returns the one to go on from.
func (s *stage) follow(ctx context.Context, version string) string {
	w, err := s.api.Watch(ctx, &v1alpha1.WebhookSubscriptionList{}, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: version, AllowWatchBookmarks: true}})
	if err != nil {
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
		return ""
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		sub, ok := event.Object.(*v1alpha1.WebhookSubscription)
		if !ok {
			return ""
		}
		version = sub.ResourceVersion
		key := client.ObjectKeyFromObject(sub)
		s.world.mu.Lock()
		switch event.Type {
		case watch.Deleted:
			delete(s.world.states, key)
		case watch.Added, watch.Modified:
			s.world.states[key] = stateOf(sub)
		case watch.Bookmark, watch.Error:
		}
		s.world.mu.Unlock()
	}
	return version
}

// The kinds of what is made.
const (
	kindBare    = "bare"
	kindMany    = "many"
	kindNews    = "news"
	kindRotated = "rotated"
	kindFlap    = "flap"
)

// place is the key of subscription i of a kind.
func (s *stage) place(kind string, i int) client.ObjectKey {
	namespace := kind
	if kind == kindBare || kind == kindMany {
		namespace = fmt.Sprintf("%s-%d", kind, i%s.namespaces)
	}
	return client.ObjectKey{Namespace: namespace, Name: fmt.Sprintf("hook-%d", i)}
}

// subscription is one of a kind. All but the rotated ones have a Secret of their own.
func (s *stage) subscription(kind string, i int) *v1alpha1.WebhookSubscription {
	key := s.place(kind, i)
	sub := &v1alpha1.WebhookSubscription{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name},
		Spec: v1alpha1.WebhookSubscriptionSpec{
			URL:     fmt.Sprintf("%s/%s/%d", s.receiver.url, kind, i),
			Events:  []string{"patient.*"},
			Signing: v1alpha1.Signing{SecretRef: v1alpha1.SecretKeyReference{Name: s.secretName(kind, i), Key: "key"}},
		},
	}
	if s.tokenBytes > 0 {
		sub.Spec.Headers = []v1alpha1.Header{{Name: "Authorization", ValueFrom: &v1alpha1.ValueSource{
			SecretKeyRef: v1alpha1.SecretKeyReference{Name: s.secretName(kind, i), Key: "token"},
		}}}
	}
	return sub
}

func (s *stage) secretName(kind string, i int) string {
	if kind == kindRotated {
		return "key"
	}
	return fmt.Sprintf("key-%d", i)
}

func (s *stage) secret(namespace, name string) *corev1.Secret {
	data := map[string]string{"key": random(32)}
	if s.tokenBytes > 0 {
		data["token"] = random(s.tokenBytes)
	}
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, StringData: data}
}

// random is text of n characters that does not compress.
func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)[:n]
}

// makeRoom makes the namespaces and Secrets of n subscriptions of a kind.
func (s *stage) makeRoom(ctx context.Context, kind string, n int) error {
	namespaces := make(map[string]bool)
	for i := range n {
		namespaces[s.place(kind, i).Namespace] = true
	}
	for name := range namespaces {
		err := s.api.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
		if client.IgnoreAlreadyExists(err) != nil {
			return err
		}
	}
	return s.each(ctx, "Secrets of "+kind, n, func(ctx context.Context, i int) error {
		if kind == kindRotated && i > 0 {
			return nil
		}
		return client.IgnoreAlreadyExists(s.api.Create(ctx, s.secret(s.place(kind, i).Namespace, s.secretName(kind, i))))
	})
}

// create makes n subscriptions of a kind.
func (s *stage) create(ctx context.Context, kind string, n int) error {
	return s.each(ctx, "subscriptions of "+kind, n, func(ctx context.Context, i int) error {
		return s.api.Create(ctx, s.subscription(kind, i))
	})
}

// each does something n times, a few at once, and shows progress.
func (s *stage) each(ctx context.Context, what string, n int, do func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	var running sync.WaitGroup
	var failure error
	next, shown := 0, time.Now()
	for range s.clients {
		running.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				if time.Since(shown) > 10*time.Second {
					s.say("  %s: %d of %d", what, i, n)
					shown = time.Now()
				}
				mu.Unlock()
				if i >= n || ctx.Err() != nil {
					return
				}
				if err := do(ctx, i); err != nil {
					mu.Lock()
					failure = errors.Join(failure, fmt.Errorf("%s, number %d: %w", what, i, err))
					mu.Unlock()
					cancel()
					return
				}
			}
		})
	}
	running.Wait()
	return failure
}
