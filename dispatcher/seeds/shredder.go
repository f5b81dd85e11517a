package seeds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	// shredAfter is how long a namespace must have been gone, in every look at it.
	shredAfter = time.Hour
	// maxLooks bounds the namespaces that a round looks at.
	maxLooks = 100
)

// Shredder deletes the seeds of namespaces that are gone, once nothing of them is to be delivered any more. What cannot be
// looked at is kept. It is for one goroutine.
type Shredder struct {
	Keeper Keeper
	// Delete deletes a tenant's seed: Cache.Delete.
	Delete func(ctx context.Context, tenant string) error
	// Gone reports whether no namespace of the name has the uid that the tenant is.
	Gone func(ctx context.Context, namespace, tenant string) (bool, error)
	// Pending reports whether a delivery of the tenant is pending.
	Pending func(ctx context.Context, tenant string) (bool, error)
	Now     func() time.Time

	since  map[string]time.Time // when each tenant was found gone first
	cursor string               // the tenant that was looked at last
}

// Round looks at the next namespaces, and returns how many seeds it deleted. A seed whose namespace is not known by name is
// left alone.
func (s *Shredder) Round(ctx context.Context) (shredded int, err error) {
	names := map[string]string{}
	err = s.Keeper.List(ctx, func(r Record) error {
		if r.Namespace != "" {
			names[r.Tenant] = r.Namespace
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("look for namespaces that are gone: %w", err)
	}
	if s.since == nil {
		s.since = map[string]time.Time{}
	}
	var errs []error
	for _, tenant := range s.next(names) {
		done, err := s.look(ctx, names[tenant], tenant)
		if done {
			shredded++
		}
		errs = append(errs, err)
		s.cursor = tenant
	}
	return shredded, errors.Join(errs...)
}

// next returns the tenants that are looked at in this round.
func (s *Shredder) next(names map[string]string) []string {
	all := make([]string, 0, len(names))
	for tenant := range names {
		all = append(all, tenant)
	}
	slices.Sort(all)
	from, found := slices.BinarySearch(all, s.cursor)
	if found {
		from++
	}
	all = append(all[from:len(all):len(all)], all[:from]...)
	return all[:min(len(all), maxLooks)]
}

func (s *Shredder) look(ctx context.Context, namespace, tenant string) (done bool, err error) {
	gone, err := s.Gone(ctx, namespace, tenant)
	if err != nil || !gone {
		delete(s.since, tenant)
		return false, err
	}
	since, known := s.since[tenant]
	if !known {
		s.since[tenant] = s.Now()
		return false, nil
	}
	if s.Now().Sub(since) < shredAfter {
		return false, nil
	}
	if pending, err := s.Pending(ctx, tenant); err != nil || pending {
		return false, err
	}
	if err := s.Delete(ctx, tenant); err != nil {
		return false, err
	}
	delete(s.since, tenant)
	return true, nil
}
