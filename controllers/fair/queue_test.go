package fair

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func request(namespace string, i int) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: fmt.Sprint(i)}}
}

func newQueue(t *testing.T) *queue {
	t.Helper()
	q := NewQueue(t.Name(), workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](time.Millisecond, time.Second)).(*queue)
	t.Cleanup(q.ShutDown)
	return q
}

// next takes an item and finishes it.
func next(q *queue) reconcile.Request {
	item, _, _ := q.GetWithPriority()
	q.Done(item)
	return item
}

// TestTurns: a tenant's ten objects are handed out at once, although another queued ten thousand before.
func TestTurns(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	for i := range 10_000 {
		q.Add(request("a", i))
	}
	for i := range 10 {
		q.Add(request("b", i))
	}
	handedOut := 0
	for range 20 {
		if item := next(q); item.Namespace == "b" {
			if item != request("b", handedOut) {
				t.Errorf("%v came as number %d of its namespace", item, handedOut)
			}
			handedOut++
		}
	}
	if handedOut != 10 {
		t.Errorf("%d of b's 10 objects in 20 turns", handedOut)
	}
	if q.Len() != 9_990 {
		t.Errorf("%d are left, want 9990", q.Len())
	}
}

// TestNewsFirst: what changed goes before what was listed when the manager started, but not for good.
func TestNewsFirst(t *testing.T) {
	t.Parallel()
	q, low := newQueue(t), handler.LowPriority
	for i := range 1000 {
		q.AddWithOpts(priorityqueue.AddOpts{Priority: &low}, request("a", i))
	}
	q.Add(request("a", 1000))
	q.Add(request("a", 999)) // it was listed, and then changed
	if first, second := next(q), next(q); first != request("a", 1000) || second != request("a", 999) {
		t.Errorf("%v and %v came first, want what changed", first, second)
	}
	for i := range 100 {
		q.Add(request("b", i))
	}
	listed := 0
	for range 100 {
		if next(q).Namespace == "a" {
			listed++
		}
	}
	if listed != 100/oldTurn {
		t.Errorf("%d of 100 turns went to what was listed, want %d", listed, 100/oldTurn)
	}
	seen := make(map[reconcile.Request]bool)
	for q.Len() > 0 {
		item := next(q)
		if seen[item] {
			t.Fatalf("%v came twice", item)
		}
		seen[item] = true
	}
	if len(seen) != 999+100-100 {
		t.Errorf("%d are left, want %d", len(seen), 999)
	}
}

// TestListedAgainIsNoNews: an item that is queued is not promoted by being listed, and news are not demoted.
func TestListedAgainIsNoNews(t *testing.T) {
	t.Parallel()
	q, low := newQueue(t), handler.LowPriority
	old := priorityqueue.AddOpts{Priority: &low}
	q.AddWithOpts(old, request("a", 1))
	q.AddWithOpts(old, request("a", 1))
	q.Add(request("a", 2))
	q.AddWithOpts(old, request("a", 2))
	if first, second := next(q), next(q); first != request("a", 2) || second != request("a", 1) || q.Len() != 0 {
		t.Errorf("got %v, %v and %d more", first, second, q.Len())
	}
}

// TestTriedAgain: failed items come back, as with any work queue.
func TestTriedAgain(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	q.AddWithOpts(priorityqueue.AddOpts{RateLimited: true}, request("a", 1))
	q.AddWithOpts(priorityqueue.AddOpts{After: time.Millisecond}, request("a", 2))
	if a, b := next(q), next(q); a == b || q.NumRequeues(request("a", 1)) != 1 {
		t.Errorf("got %v and %v", a, b)
	}
}
