package revocation

import (
	"context"
	"time"
)

// Store has the rules of all replicas, in the order in which they were appended.
// [Memory], [File] and contrib/koreredis are stores. Test your own with package
// revocationtest.
type Store interface {
	// Append completes the rule with [Rule.Complete], and returns when it is stored
	// so that no crash loses it.
	Append(ctx context.Context, r Rule) (Receipt, error)
	// Follow calls apply with the rules whose Seq is greater than from, oldest
	// first, and then with each new one. It calls current when all rules have been
	// given, and then at least every two seconds; at is a time at which the store
	// had no other rule. It gives all rules if from is greater than the last Seq,
	// or if the store lost rules or began anew since it last gave some. Follow
	// returns when ctx is done, with the error of ctx, or when the store fails. The
	// calls of apply and current do not overlap.
	Follow(ctx context.Context, from uint64, apply func(Receipt), current func(at time.Time)) error
}

// Fleet is implemented by stores that replicas share, beside Store.
//
// A Fleet may also have a method Lost() bool, which reports whether the store has
// lost rules, or began anew, since Refill last returned nil. A [List] then calls Refill
// only if Lost reports true. Without it, the list calls Refill after each reconnect.
type Fleet interface {
	// Refill appends those of the receipts that the store lacks, with their At. Of
	// all replicas that call it at once, one appends a rule; when Refill returns nil,
	// the store has all of the receipts. Their rules may have only a Hash.
	Refill(ctx context.Context, receipts []Receipt) error
	// Report says that a replica has applied all rules up to seq.
	Report(ctx context.Context, replica string, seq uint64) error
	// Replicas returns how many replicas have reported lately, and how many of them
	// have applied all rules.
	Replicas(ctx context.Context) (known, current int, err error)
}

// Status describes a [List].
type Status struct {
	Entries int       // distinct selections that are revoked
	Seq     uint64    // of the last rule applied
	Current time.Time // the list is known to be complete as of then; zero: it was never
	Err     error     // why the list is not current, or nil
}
