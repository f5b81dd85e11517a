package engine

import "github.com/clinikapi/eventflow/dispatcher/delivery"

// queue holds the deliveries of one lane that are in memory and due, earliest first. It is a binary heap; the usual
// case, in which deliveries come in the order in which they leave, moves nothing on the way in.
type queue struct{ items []delivery.PendingDelivery }

func (q *queue) len() int { return len(q.items) }

func (q *queue) push(d delivery.PendingDelivery) {
	q.items = append(q.items, d)
	i := len(q.items) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if !q.before(i, parent) {
			break
		}
		q.items[i], q.items[parent] = q.items[parent], q.items[i]
		i = parent
	}
}

// pop removes the earliest; the queue must not be empty.
func (q *queue) pop() delivery.PendingDelivery {
	first := q.items[0]
	last := len(q.items) - 1
	q.items[0] = q.items[last]
	q.items[last] = delivery.PendingDelivery{} // lets go of its event
	q.items = q.items[:last]
	if size := cap(q.items); size > 2*laneWindow && last < size/4 {
		q.items = append(make([]delivery.PendingDelivery, 0, size/2), q.items...)
	}
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return first
		}
		if child+1 < last && q.before(child+1, child) {
			child++
		}
		if !q.before(child, i) {
			return first
		}
		q.items[i], q.items[child] = q.items[child], q.items[i]
		i = child
	}
}

func (q *queue) before(i, j int) bool { return q.items[i].Position().Before(q.items[j].Position()) }
