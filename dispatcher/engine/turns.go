package engine

// fifo is a queue. It keeps its memory.
type fifo[T comparable] struct {
	items []T
	head  int
}

func (f *fifo[T]) len() int { return len(f.items) - f.head }

func (f *fifo[T]) push(item T) {
	if f.head > 0 && len(f.items) == cap(f.items) { // make room in front before growing
		n := copy(f.items, f.items[f.head:])
		clear(f.items[n:])
		f.items, f.head = f.items[:n], 0
	}
	f.items = append(f.items, item)
}

// pop returns the first item, or the zero value if there is none.
func (f *fifo[T]) pop() (first T) {
	if f.len() == 0 {
		return first
	}
	first, f.items[f.head] = f.items[f.head], first
	f.head++
	if f.len() == 0 {
		f.items, f.head = f.items[:0], 0
	}
	return first
}

// wakeHeap orders lanes by their wake-up (container/heap).
type wakeHeap []*lane

func (h wakeHeap) Len() int           { return len(h) }
func (h wakeHeap) Less(i, j int) bool { return h[i].wake.Before(h[j].wake) }

func (h wakeHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].wakeIndex, h[j].wakeIndex = i, j
}

// Push appends a *lane.
func (h *wakeHeap) Push(x any) {
	l := x.(*lane)
	l.wakeIndex = len(*h)
	*h = append(*h, l)
}

// Pop removes the last lane.
func (h *wakeHeap) Pop() any {
	last := len(*h) - 1
	l := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	l.wakeIndex = -1
	return l
}
