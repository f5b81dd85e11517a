package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// update makes s.shards those that the index names, and returns what it got for that. What it got is kept if it fails
// for others: the next index is likely to name it.
func (s *Source) update(ctx context.Context, index *routing.Index) (blobs map[int][]byte, err error) {
	var wanted []string
	numbers := make(map[string]int, len(index.Shards))
	for i, hash := range index.Shards {
		name := s.name(index, i)
		numbers[name] = i
		if s.shards[name].hash != hash {
			wanted = append(wanted, name)
		}
	}
	blobs = make(map[int][]byte, len(wanted))
	for name, result := range s.getAll(ctx, wanted) {
		i := numbers[name]
		if result.err == nil {
			s.shards[name], blobs[i] = result.shard, result.blob
			if result.hash != index.Shards[i] {
				result.err = errAhead
			}
		}
		if err == nil || result.err != nil && !errors.Is(result.err, errAhead) {
			err = result.err
		}
	}
	if err != nil {
		return nil, err
	}
	for name := range s.shards {
		if _, found := numbers[name]; !found {
			delete(s.shards, name)
		}
	}
	return blobs, nil
}

// name is that of the Secret of an index's shard.
func (s *Source) name(index *routing.Index, i int) string {
	return cmp.Or(index.Layout, routing.Small).ShardName(s.cfg.Dispatcher, i)
}

// result is what came of getting one shard.
type result struct {
	shard
	blob []byte
	err  error
}

// getAll gets the wanted shards, a few at a time.
func (s *Source) getAll(ctx context.Context, wanted []string) map[string]*result {
	results := make(map[string]*result, len(wanted))
	var running sync.WaitGroup
	slots := make(chan struct{}, parallelGets)
	for _, name := range wanted {
		into := &result{}
		results[name] = into
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			if into.blob, into.err = s.get(ctx, name); into.err == nil {
				into.shard, into.err = decode(into.blob)
			}
			if into.err != nil {
				into.err = fmt.Errorf("read a shard: %w", into.err)
			}
		})
	}
	running.Wait()
	return results
}

func (s *Source) get(ctx context.Context, name string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	secret, err := s.cfg.Secrets.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("get Secret %s: %w", name, err)
	}
	return secret.Data[routing.ShardKey], nil
}

// decode returns the shard that is written as blob.
func decode(blob []byte) (shard, error) {
	entries, err := routing.DecodeShard(blob)
	if err != nil {
		return shard{}, err
	}
	routes := make([]*routing.Route, len(entries))
	for i, entry := range entries {
		if routes[i], err = entry.Route(); err != nil {
			return shard{}, err
		}
	}
	return shard{hash: routing.Hash(blob), routes: routes}, nil
}
