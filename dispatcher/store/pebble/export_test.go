package pebble

// CheckSpace looks at the volume now, not only once a second.
func (s *Store) CheckSpace() { s.checkSpace() }
