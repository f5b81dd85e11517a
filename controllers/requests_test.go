package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/settings"
)

// requests counts what the manager asks of the API server, by method and path.
type requests struct {
	mu    sync.Mutex
	count map[string]int
}

var asked = &requests{count: make(map[string]int)}

// wrap has a client's requests counted.
func (r *requests) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(request *http.Request) (*http.Response, error) {
		if request.URL.Query().Get("watch") == "" {
			r.mu.Lock()
			r.count[request.Method+" "+request.URL.Path]++
			r.mu.Unlock()
		}
		return next.RoundTrip(request)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

// of returns those of a method, "" for any that writes, whose paths are in a namespace and hold some text.
func (r *requests) of(method, namespace, text string) (n int, list []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, count := range r.count {
		which, path, _ := strings.Cut(key, " ")
		if (which == method || method == "" && which != http.MethodGet) && strings.Contains(path, "/namespaces/"+namespace+"/") && strings.Contains(path, text) {
			n += count
			list = append(list, fmt.Sprintf("%d × %s", count, key))
		}
	}
	return n, list
}

func (r *requests) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.count)
}

// settled waits until the manager has asked nothing in a namespace for two seconds.
func settled(t *testing.T, namespace string) {
	t.Helper()
	last, since := -1, time.Time{}
	eventually(t, func(context.Context) error {
		reads, _ := asked.of(http.MethodGet, namespace, "")
		writes, _ := asked.of("", namespace, "")
		if reads+writes != last {
			last, since = reads+writes, time.Now()
		}
		if time.Since(since) < 2*time.Second {
			return errors.New("it is still asking")
		}
		return nil
	})
}

// clinic is a namespace with a dispatcher and n subscriptions, each with a Secret of its own, that are all Ready.
func clinic(t *testing.T, n int) (ns string, subs []*v1alpha1.WebhookSubscription) {
	t.Helper()
	ns = namespace(t)
	dispatcher(t, ns)
	for i := range n {
		secret(t, ns, fmt.Sprintf("key-%d", i), map[string]string{"current": signingKey})
		subs = append(subs, create(t, subscription(ns, fmt.Sprintf("hook-%d", i), func(s *v1alpha1.WebhookSubscription) {
			s.Spec.Signing.SecretRef.Name = fmt.Sprintf("key-%d", i)
		})))
	}
	for i, sub := range subs {
		entry(t, ns, sub.Name, func(*routing.Entry) error { return nil })
		program(t, subs[i])
		become(t, subs[i], v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
	}
	settled(t, ns)
	return ns, subs
}

// TestRestartReadsNoSecret: a manager that starts with nothing changed reads no subscription's Secret and writes nothing.
func TestRestartReadsNoSecret(t *testing.T) {
	ns, subs := clinic(t, 10)
	if err := manager.stop(); err != nil {
		t.Fatal(err)
	}
	asked.forget()
	manager.start(controllers.Options{})
	settled(t, ns)
	if n, list := asked.of(http.MethodGet, ns, "/secrets/key-"); n > 0 {
		t.Errorf("%d reads of Secrets: %v", n, list)
	}
	if n, list := asked.of("", ns, "/webhooksubscriptions/"); n > 0 {
		t.Errorf("%d writes of subscriptions: %v", n, list)
	}
	if n, list := asked.of("", ns, "/secrets/main-routes"); n > 0 {
		t.Errorf("%d writes of the table: %v", n, list)
	}
	if n, list := asked.of(http.MethodGet, ns, "/secrets"); n > 3 { // and of the certificate, once
		t.Errorf("%d reads of the table: %v", n, list)
	}

	// What changed while no manager ran is read.
	if err := manager.stop(); err != nil {
		t.Fatal(err)
	}
	key := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "key-3"}}
	change(t, key, func(s *corev1.Secret) { s.Data["current"] = []byte("another key of twenty-four bytes") })
	asked.forget()
	manager.start(controllers.Options{})
	entry(t, ns, subs[3].Name, func(e *routing.Entry) error {
		if string(e.Keys[0]) != "another key of twenty-four bytes" {
			return errors.New("it has the key of before")
		}
		return nil
	})
	settled(t, ns)
	if n, list := asked.of(http.MethodGet, ns, "/secrets/key-"); n != 1 {
		t.Errorf("%d reads of Secrets: %v", n, list)
	}
}

// TestOneChangeIsFourWrites: the shard, the index, and one status by each plane.
func TestOneChangeIsFourWrites(t *testing.T) {
	ns, subs := clinic(t, 2)
	asked.forget()
	change(t, subs[0], func(s *v1alpha1.WebhookSubscription) { s.Spec.Events = []string{"lab.*"} })
	entry(t, ns, subs[0].Name, func(e *routing.Entry) error {
		if e.Generation != subs[0].Generation {
			return errors.New("not yet")
		}
		return nil
	})
	program(t, subs[0]) // the dispatcher's, the fourth
	become(t, subs[0], v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
	settled(t, ns)
	if n, list := asked.of("", ns, ""); n > 3 {
		t.Errorf("the manager wrote %d times: %v", n, list)
	}
}

// TestScaledDispatcherReadsNoSecret: a change of a dispatcher's spec from which no route follows costs no reading.
func TestScaledDispatcherReadsNoSecret(t *testing.T) {
	ns, subs := clinic(t, 5)
	asked.forget()
	d := &v1alpha1.WebhookDispatcher{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "main"}}
	change(t, d, func(d *v1alpha1.WebhookDispatcher) { d.Spec.Replicas = new(int32(0)) })
	become(t, d, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSuspended)
	settled(t, ns)
	if n, list := asked.of(http.MethodGet, ns, "/secrets/key-"); n > 0 {
		t.Errorf("%d subscriptions, %d reads of Secrets: %v", len(subs), n, list)
	}
}

// TestRotationReadsOnce: the Secret that many subscriptions name is read once when it is rotated.
func TestRotationReadsOnce(t *testing.T) {
	ns := namespace(t)
	dispatcher(t, ns)
	key := secret(t, ns, "key", map[string]string{"current": signingKey})
	const n = 50
	for i := range n {
		create(t, subscription(ns, fmt.Sprintf("hook-%d", i)))
	}
	rotated := func(want string) func(context.Context) error {
		return func(ctx context.Context) error {
			entries, err := table(ctx, ns)
			if err != nil {
				return err
			}
			for _, e := range entries {
				if string(e.Keys[0]) != want {
					return errors.New("not yet")
				}
			}
			if len(entries) != n {
				return fmt.Errorf("%d entries", len(entries))
			}
			return nil
		}
	}
	eventually(t, rotated(signingKey))
	settled(t, ns)
	asked.forget()
	change(t, key, func(s *corev1.Secret) { s.Data["current"] = []byte("another key of twenty-four bytes") })
	eventually(t, rotated("another key of twenty-four bytes"))
	settled(t, ns)
	if n, list := asked.of(http.MethodGet, ns, "/secrets/key"); n != 1 {
		t.Errorf("%d reads: %v", n, list)
	}
}

// TestNewDispatcherAppliesOnce: what a new dispatcher becomes is applied once, and nothing that does not exist is asked for by
// name, one after the other.
func TestNewDispatcherAppliesOnce(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	d := dispatcher(t, ns)
	appears(t, in(ns, workload, &appsv1.Deployment{}), exists)
	become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	settled(t, ns)
	all := 0
	for _, object := range []string{"/serviceaccounts/", "/roles/", "/rolebindings/", "/services/", "/poddisruptionbudgets/", "/deployments/", "/persistentvolumeclaims/", "/secrets/" + settings.SecretName(d.Name)} {
		n, list := asked.of(http.MethodPatch, ns, object)
		if n < 1 || n > 2 { // a second one, if a reconcile is faster than the cache, and of the claim with its storage class
			t.Errorf("%d patches of %s: %v", n, object, list)
		}
		all += n
	}
	if all > 12 {
		t.Errorf("%d patches of 8 objects", all)
	}
	if n, list := asked.of(http.MethodGet, ns, "/secrets"); n > 6 { // two of the certificate, and one more while the cache is behind
		t.Errorf("%d reads of Secrets: %v", n, list)
	}
}
