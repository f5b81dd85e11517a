package kube

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

const (
	// keptFor is how long a list is shown again. A page says how old its list is.
	keptFor = 10 * time.Second
	// maxKept bounds the rows of all lists together, and maxLists their number: some 200 MiB.
	maxKept  = 400_000
	maxLists = 64
)

// listKey is what a list belongs to.
type listKey struct {
	user      [sha256.Size]byte
	namespace string
}

// Lists keeps each user's last lists.
type Lists struct {
	clock clock.PassiveClock

	mu   sync.Mutex
	kept map[listKey]*Snapshot
	rows int
}

// NewLists returns an empty Lists.
func NewLists(c clock.PassiveClock) *Lists {
	return &Lists{clock: c, kept: make(map[listKey]*Snapshot)}
}

// get returns the kept list of key, or one that list makes now.
func (l *Lists) get(ctx context.Context, key listKey, fresh bool, list func(context.Context) ([]Row, error)) (*Snapshot, error) {
	now := l.clock.Now()
	l.mu.Lock()
	l.expire(now)
	kept := l.kept[key]
	l.mu.Unlock()
	if kept != nil && !fresh {
		return kept, nil
	}
	rows, err := list(ctx)
	if err != nil {
		return nil, err
	}
	Sort(rows)
	made := &Snapshot{Rows: rows, Time: now}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(key)
	if len(l.kept) < maxLists && l.rows+len(rows) <= maxKept {
		l.kept[key] = made
		l.rows += len(rows)
	}
	return made, nil
}

func (l *Lists) expire(now time.Time) {
	for key, kept := range l.kept {
		if now.Sub(kept.Time) >= keptFor {
			l.drop(key)
		}
	}
}

func (l *Lists) drop(key listKey) {
	if kept := l.kept[key]; kept != nil {
		l.rows -= len(kept.Rows)
		delete(l.kept, key)
	}
}

// forget drops what a user listed: something was changed.
func (l *Lists) forget(user [sha256.Size]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key := range l.kept {
		if key.user == user {
			l.drop(key)
		}
	}
}

// slim is the part of a subscription that a row needs. Managed fields and specs are most of a list, and are skipped.
type slim struct {
	Metadata struct {
		Name              string            `json:"name"`
		Namespace         string            `json:"namespace"`
		CreationTimestamp metav1.Time       `json:"creationTimestamp"`
		Labels            map[string]string `json:"labels"`
		Annotations       map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec struct {
		Events  []string `json:"events"`
		Suspend *bool    `json:"suspend"`
	} `json:"spec"`
	Status struct {
		Endpoint   string                   `json:"endpoint"`
		Conditions []metav1.Condition       `json:"conditions"`
		Deliveries *v1alpha1.DeliveryCounts `json:"deliveries"`
	} `json:"status"`
}

// decodeRows reads a list one object at a time, so that the list is never in memory as a whole.
func decodeRows(body io.Reader) ([]Row, error) {
	decoder := json.NewDecoder(body)
	if err := skipTo(decoder, "items"); err != nil {
		return nil, fmt.Errorf("read the list of subscriptions: %w", err)
	}
	var rows []Row
	for decoder.More() {
		item := slim{}
		if err := decoder.Decode(&item); err != nil {
			return nil, fmt.Errorf("read the list of subscriptions: %w", err)
		}
		sub := v1alpha1.WebhookSubscription{}
		sub.Name, sub.Namespace, sub.CreationTimestamp = item.Metadata.Name, item.Metadata.Namespace, item.Metadata.CreationTimestamp
		sub.Labels, sub.Annotations = item.Metadata.Labels, item.Metadata.Annotations
		sub.Spec.Events, sub.Spec.Suspend = item.Spec.Events, item.Spec.Suspend
		sub.Status.Endpoint, sub.Status.Conditions, sub.Status.Deliveries = item.Status.Endpoint, item.Status.Conditions, item.Status.Deliveries
		rows = append(rows, RowOf(&sub))
	}
	return rows, nil
}

// skipTo moves a decoder into the array that a key of the outermost object has.
func skipTo(decoder *json.Decoder, key string) error {
	if _, err := decoder.Token(); err != nil {
		return err
	}
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return err
		}
		if name == key {
			_, err := decoder.Token()
			return err
		}
		var skipped json.RawMessage
		if err := decoder.Decode(&skipped); err != nil {
			return err
		}
	}
	return io.ErrUnexpectedEOF
}
