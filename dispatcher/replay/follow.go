package replay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

const (
	// firstDelay and longestDelay bound the wait before the replays are listed again.
	firstDelay, longestDelay = 500 * time.Millisecond, 30 * time.Second
	// watchTimeout is when a watch ends and begins anew; up to as much is added at random.
	watchTimeout = 5 * time.Minute
	// listPage is how many are listed with one request.
	listPage = 500
	// pollPause is how often the namespaces are listed one by one, where the dispatcher may not list all.
	pollPause = 10 * time.Second
)

// errIncomplete says that there is room for what there was no room for.
var errIncomplete = errors.New("there is room for more replays")

// follow keeps what is known of replays until ctx ends.
func (r *Runner) follow(ctx context.Context) {
	delay := firstDelay
	for {
		listed, err := r.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if listed {
			delay = firstDelay
		}
		if err != nil && !errors.Is(err, errIncomplete) {
			r.Logger.V(1).Info("Following the replays failed; trying again", "error", err.Error())
		}
		if wait(ctx, delay+rand.N(delay/2)) != nil {
			return
		}
		delay = min(2*delay, longestDelay)
	}
}

// session lists and watches once. It reports whether the list was there.
func (r *Runner) session(ctx context.Context) (listed bool, err error) {
	fresh := newKnown(r.Name)
	version, err := r.list(ctx, "", fresh)
	if apierrors.IsForbidden(err) {
		return true, r.poll(ctx)
	}
	if err != nil {
		return false, fmt.Errorf("list: %w", err)
	}
	r.known.replace(fresh)
	for {
		if version, err = r.watch(ctx, version); err != nil {
			return true, err
		}
	}
}

// list adds the replays of a namespace, "" for all, and returns the version to watch from.
func (r *Runner) list(ctx context.Context, namespace string, into *known) (version string, err error) {
	options := metav1.ListOptions{Limit: listPage}
	for {
		page, err := r.Client.List(ctx, namespace, options)
		if err != nil {
			return "", err
		}
		for i := range page.Items {
			into.put(&page.Items[i])
		}
		if options.Continue = page.Continue; options.Continue == "" {
			return page.ResourceVersion, nil
		}
	}
}

// poll lists the replays of each namespace of the routing table, again and again: a dispatcher whose manager has Roles alone may not
// list those of all. A namespace that it may not list has none.
func (r *Runner) poll(ctx context.Context) error {
	fresh := newKnown(r.Name)
	for _, namespace := range r.Namespaces() {
		if _, err := r.list(ctx, namespace, fresh); err != nil && !apierrors.IsForbidden(err) {
			return fmt.Errorf("list those of a namespace: %w", err)
		}
	}
	r.known.replace(fresh)
	return wait(ctx, pollPause)
}

// watch follows the changes behind a version until the watch ends, and returns the version that it saw last.
func (r *Runner) watch(ctx context.Context, version string) (string, error) {
	seconds := int64((watchTimeout + rand.N(watchTimeout)).Seconds())
	watching, err := r.Client.Watch(ctx, metav1.ListOptions{ResourceVersion: version, AllowWatchBookmarks: true, TimeoutSeconds: ptr.To(seconds)})
	if err != nil {
		return version, fmt.Errorf("watch: %w", err)
	}
	defer watching.Stop()
	for {
		var e watch.Event
		var open bool
		select {
		case <-ctx.Done():
			return version, ctx.Err()
		case e, open = <-watching.ResultChan():
		}
		if !open {
			return version, nil
		}
		if e.Type == watch.Error {
			return version, fmt.Errorf("watch: %w", apierrors.FromObject(e.Object))
		}
		object, ok := e.Object.(*v1alpha1.WebhookReplay)
		if !ok {
			return version, fmt.Errorf("watch: an object of %T", e.Object)
		}
		version = object.ResourceVersion
		switch e.Type {
		case watch.Added, watch.Modified:
			r.known.put(object)
		case watch.Deleted:
			r.known.drop(object.Namespace, object.Name)
		case watch.Bookmark, watch.Error: // a version alone; handled above
		}
		if r.known.incomplete() {
			return version, errIncomplete
		}
	}
}

// wait waits, and returns the error of a context that ends meanwhile.
func wait(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
