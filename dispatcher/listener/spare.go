package listener

import (
	"os"
	"sync"
)

// spare are file descriptors that are held so that they can be let go when the process has no other left.
type spare struct {
	mu     sync.Mutex
	wanted int
	files  []*os.File
}

// fill begins to hold n descriptors.
func (s *spare) fill(n int) {
	s.mu.Lock()
	s.wanted = n
	s.mu.Unlock()
	s.refill()
}

// take lets one go, and reports whether there was one.
func (s *spare) take() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.files) == 0 {
		return false
	}
	last := len(s.files) - 1
	_ = s.files[last].Close()
	s.files = s.files[:last]
	return true
}

// refill holds as many as are wanted, or as can be had now.
func (s *spare) refill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.files) < s.wanted {
		file, err := os.Open(os.DevNull)
		if err != nil {
			return
		}
		s.files = append(s.files, file)
	}
}

// close lets all go for good.
func (s *spare) close() {
	s.mu.Lock()
	s.wanted = 0
	s.mu.Unlock()
	for s.take() {
	}
}
