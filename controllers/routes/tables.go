package routes

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/settings"
)

// DispatcherField indexes subscriptions by the dispatcher that they name, as Key writes it.
const DispatcherField = "spec.dispatcherRef"

// Tables holds the routing table of each dispatcher, from the moment on when someone asks for it. It is safe for
// concurrent use.
type Tables struct {
	client client.Client
	reader client.Reader

	// Changed triggers the controller that writes tables.
	Changed Trigger
	// Review triggers the controller that reconciles subscriptions.
	Review Trigger

	mu     sync.Mutex
	tables map[client.ObjectKey]*loading
}

// loading is a table that is loaded once.
type loading struct {
	mu    sync.Mutex // held while it is loaded
	uid   types.UID
	table atomic.Pointer[Table]
}

// NewTables returns no table yet. c reads from a cache that is synced and has DispatcherField; reader reads from the API
// server.
func NewTables(c client.Client, reader client.Reader) *Tables {
	return &Tables{client: c, reader: reader, tables: make(map[client.ObjectKey]*loading)}
}

// Key is a dispatcher as DispatcherField has it.
func Key(ref v1alpha1.DispatcherReference) string { return ref.Namespace + "/" + ref.Name }

// Of returns the table of a dispatcher, which it reads from the API server the first time.
func (t *Tables) Of(ctx context.Context, dispatcher *v1alpha1.WebhookDispatcher) (*Table, error) {
	key := client.ObjectKeyFromObject(dispatcher)
	t.mu.Lock()
	l := t.tables[key]
	if l == nil {
		l = &loading{}
		t.tables[key] = l
	}
	t.mu.Unlock()

	l.mu.Lock()
	defer l.mu.Unlock()
	if table := l.table.Load(); table != nil && l.uid == dispatcher.UID {
		table.report(dispatcher.Status.ProgrammedRevision)
		return table, nil
	}
	table, err := t.load(ctx, dispatcher)
	if err != nil {
		return nil, fmt.Errorf("load the routing table of %s: %w", key, err)
	}
	l.uid = dispatcher.UID
	l.table.Store(table)
	return table, nil
}

// Report takes what a dispatcher reports in its status of its table, if that is loaded: the subscriptions that waited for it
// are looked at.
func (t *Tables) Report(dispatcher *v1alpha1.WebhookDispatcher) {
	t.mu.Lock()
	l := t.tables[client.ObjectKeyFromObject(dispatcher)]
	t.mu.Unlock()
	if l == nil {
		return
	}
	if table := l.table.Load(); table != nil && table.uid == dispatcher.UID {
		table.report(dispatcher.Status.ProgrammedRevision)
	}
}

func (t *Tables) load(ctx context.Context, dispatcher *v1alpha1.WebhookDispatcher) (*Table, error) {
	key := client.ObjectKeyFromObject(dispatcher)
	subscriptions := &v1alpha1.WebhookSubscriptionList{}
	named := client.MatchingFields{DispatcherField: Key(v1alpha1.DispatcherReference{Namespace: key.Namespace, Name: key.Name})}
	if err := t.client.List(ctx, subscriptions, named, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list subscriptions: %w", err)
	}
	expected := make(map[string]client.ObjectKey, len(subscriptions.Items))
	for i := range subscriptions.Items {
		sub := &subscriptions.Items[i]
		expected[string(sub.UID)] = client.ObjectKeyFromObject(sub)
	}
	table := newTable(key, func() { t.Changed.Add(key) }, t.Review.Add)
	table.uid, table.reported = dispatcher.UID, dispatcher.Status.ProgrammedRevision
	if err := table.load(ctx, t.storage(dispatcher), expected); err != nil {
		return nil, err
	}
	t.Changed.Add(key)
	return table, nil
}

func (t *Tables) storage(dispatcher *v1alpha1.WebhookDispatcher) storage {
	return &secrets{client: t.client, reader: t.reader, dispatcher: client.ObjectKeyFromObject(dispatcher), uid: dispatcher.UID}
}

// Clear takes a subscription out of every table but that of the dispatcher that it names now; with no dispatcher it is
// the subscription's deletion.
func (t *Tables) Clear(subscription client.ObjectKey, but *client.ObjectKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, l := range t.tables {
		if table := l.table.Load(); table != nil && (but == nil || *but != key) {
			table.Clear(subscription, "")
		}
	}
}

// suspect notes that a Secret of a dispatcher's table has a resource version, or is gone if that is "".
func (t *Tables) suspect(dispatcher client.ObjectKey, name, resourceVersion string) {
	if name == settings.SecretName(dispatcher.Name) {
		return // not the table's
	}
	t.mu.Lock()
	l := t.tables[dispatcher]
	t.mu.Unlock()
	if l == nil {
		return // it is read when it is loaded
	}
	if table := l.table.Load(); table != nil && table.suspect(name, resourceVersion) {
		t.Changed.Add(dispatcher)
	}
}

// drop forgets the table of a dispatcher that is gone. Its Secrets are collected with it.
func (t *Tables) drop(dispatcher client.ObjectKey) {
	t.mu.Lock()
	delete(t.tables, dispatcher)
	t.mu.Unlock()
	forgetMetrics(dispatcher.Namespace, dispatcher.Name)
}
