package places

import "cmp"

// turns is a heap of the sources with waiters: first the one with the least start, and of two with the same the one that
// waits longer.
type turns []*source

func (t turns) Len() int { return len(t) }

func (t turns) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(t[i].start, t[j].start), cmp.Compare(t[i].order(), t[j].order())) < 0
}

// order is the place of the source's first waiter among all.
func (s *source) order() int64 { return s.waiters[0].since - s.ahead }

func (t turns) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = i, j
}

// Push adds a source; see heap.Push.
func (t *turns) Push(x any) {
	s := x.(*source)
	s.index = len(*t)
	*t = append(*t, s)
}

// Pop takes the last source; see heap.Pop.
func (t *turns) Pop() any {
	last := len(*t) - 1
	s := (*t)[last]
	(*t)[last] = nil
	*t = (*t)[:last]
	s.index = -1
	return s
}
