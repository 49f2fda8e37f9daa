package revocation

import (
	"encoding/binary"
	"hash/maphash"
	"sync/atomic"
)

// index finds groups by a number. Any number of goroutines may call at and find. All
// other methods need the lock of the ruleSet.
type index struct {
	slots atomic.Pointer[[]atomic.Pointer[group]] // the length is a power of two
	used  int
	// placeOf returns the number of a group.
	placeOf func(*group) uint64
}

// groupsByHash and groupsByName are the numbers by which groups are found.
func groupsByHash(g *group) uint64 { return binary.LittleEndian.Uint64(g.hash[:8]) }
func groupsByName(g *group) uint64 { return g.place }

// findHash returns the group with a hash, or nil.
func (x *index) findHash(k kind, h hash) *group {
	slots := x.slots.Load()
	if slots == nil {
		return nil
	}
	for i := binary.LittleEndian.Uint64(h[:8]); ; i++ {
		g := (*slots)[i&uint64(len(*slots)-1)].Load()
		if g == nil || g.hash == h && g.kind == k {
			return g
		}
	}
}

// findName returns the group whose issuer and value are known to be these, or nil.
func (x *index) findName(place uint64, k kind, issuer, value string) *group {
	slots := x.slots.Load()
	if slots == nil {
		return nil
	}
	for i := place; ; i++ {
		g := (*slots)[i&uint64(len(*slots)-1)].Load()
		if g == nil || g.place == place && g.kind == k && g.value == value && g.issuer == issuer {
			return g
		}
	}
}

// add adds a group that is not in the index.
func (x *index) add(g *group) {
	slots := x.slots.Load()
	if slots == nil || (x.used+1)*4 > len(*slots)*3 {
		x.retain(func(*group) bool { return true })
		slots = x.slots.Load()
	}
	put(*slots, x.placeOf(g), g)
	x.used++
}

// retain copies the groups for which keep returns true to new slots, at most half of
// which are used.
func (x *index) retain(keep func(*group) bool) {
	var kept []*group
	for g := range x.all() {
		if keep(g) {
			kept = append(kept, g)
		}
	}
	size := 8
	for size < 2*len(kept) {
		size *= 2
	}
	fresh := make([]atomic.Pointer[group], size)
	for _, g := range kept {
		put(fresh, x.placeOf(g), g)
	}
	x.used = len(kept)
	x.slots.Store(&fresh)
}

func put(slots []atomic.Pointer[group], place uint64, g *group) {
	for i := place; ; i++ {
		if slot := &slots[i&uint64(len(slots)-1)]; slot.Load() == nil {
			slot.Store(g)
			return
		}
	}
}

// all iterates over the groups.
func (x *index) all() func(yield func(*group) bool) {
	return func(yield func(*group) bool) {
		slots := x.slots.Load()
		if slots == nil {
			return
		}
		for i := range *slots {
			if g := (*slots)[i].Load(); g != nil && !yield(g) {
				return
			}
		}
	}
}

// seeds make the numbers of names and tokens impossible to predict.
var seeds = [...]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

// placeOf returns the number of a name. issuer is the maphash of the issuer.
func placeOf(k kind, issuer uint64, value string) uint64 {
	return maphash.String(seeds[0], value) + issuer*(2*uint64(k)+3)
}
