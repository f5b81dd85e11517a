package places

// Sources returns how many sources a pool remembers.
func Sources(p *Pool) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.sources)
}
