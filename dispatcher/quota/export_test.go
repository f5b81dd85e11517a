package quota

// Known is how many tenants the keeper remembers.
func (k *Keeper) Known() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.tenants)
}
