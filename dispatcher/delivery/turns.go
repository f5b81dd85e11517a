package delivery

// fifo is a queue of lanes. It keeps its memory.
type fifo struct {
	lanes []*lane
	head  int
}

func (f *fifo) len() int { return len(f.lanes) - f.head }

func (f *fifo) push(l *lane) {
	if f.head > 0 && len(f.lanes) == cap(f.lanes) { // make room in front before growing
		n := copy(f.lanes, f.lanes[f.head:])
		clear(f.lanes[n:])
		f.lanes, f.head = f.lanes[:n], 0
	}
	f.lanes = append(f.lanes, l)
}

// pop returns the first lane, or nil.
func (f *fifo) pop() *lane {
	if f.len() == 0 {
		return nil
	}
	l := f.lanes[f.head]
	f.lanes[f.head] = nil
	f.head++
	if f.len() == 0 {
		f.lanes, f.head = f.lanes[:0], 0
	}
	return l
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
