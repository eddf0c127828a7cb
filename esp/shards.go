package esp

import (
	"maps"
	"sync/atomic"
)

// shardCount bounds what a change copies: a shard is replaced as a whole.
const shardCount = 256

// shards is a map that is read without a lock. Whoever changes it makes sure that
// nobody else does at the same time, and spreads the keys over the shards evenly.
type shards[K comparable, V any] struct {
	maps [shardCount]atomic.Pointer[map[K]V]
}

func (s *shards[K, V]) lookup(shard uint8, key K) (v V, ok bool) {
	m := s.maps[shard].Load()
	if m == nil {
		return v, false
	}
	v, ok = (*m)[key]
	return v, ok
}

// change replaces a shard by an edited copy.
func (s *shards[K, V]) change(shard uint8, edit func(map[K]V)) {
	next := map[K]V{}
	if old := s.maps[shard].Load(); old != nil {
		next = maps.Clone(*old)
	}
	edit(next)
	if len(next) == 0 {
		s.maps[shard].Store(nil)
		return
	}
	s.maps[shard].Store(&next)
}

// size counts the keys.
func (s *shards[K, V]) size() (n int) {
	for i := range s.maps {
		if m := s.maps[i].Load(); m != nil {
			n += len(*m)
		}
	}
	return n
}
