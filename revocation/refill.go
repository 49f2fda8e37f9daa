package revocation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// nextAt returns the current time, or a later time if that is not after the latest At
// of a store.
func nextAt(latest time.Time) time.Time {
	at := moment(time.Now())
	if !at.After(latest) {
		at = latest.UTC().Add(1)
	}
	return at
}

// moment returns a time in UTC, without the monotonic clock, which no store keeps. So
// equal moments are equal values.
func moment(at time.Time) time.Time { return at.UTC().Round(0) }

// utc returns the receipt with its moments in UTC.
func utc(r Receipt) Receipt {
	r.At, r.Rule.IssuedBefore, r.Rule.Until = moment(r.At), moment(r.Rule.IssuedBefore), moment(r.Rule.Until)
	return r
}

// keyOf returns what a rule selects.
func keyOf(r Rule) (kind, hash, error) {
	if r.Hash != "" {
		return parseHash(r.Hash)
	}
	k, value := r.selection()
	if len(r.Issuer) > maxValue || len(value) > maxValue {
		return 0, hash{}, errors.New("revocation: a value is too long")
	}
	return k, hashOf(k, r.Issuer, value), nil
}

// identity is equal for the receipts of one rule, whether it is hashed or not.
type identity struct {
	at, before, until time.Time
	key               hash
	kind              kind
	lift              bool
}

func identityOf(r Receipt) identity {
	k, key, _ := keyOf(r.Rule) // Stores have no rule that Complete rejects.
	return identity{moment(r.At), moment(r.Rule.IssuedBefore), moment(r.Rule.Until), key, k, r.Rule.Lift}
}

// lacking has the receipts of a refill that were not found in the store yet.
type lacking struct {
	order  []Receipt
	places map[identity]int // places in order
}

// findLacking begins the refill of a store. The error is about a receipt that no store
// has given, which is left out.
func findLacking(receipts []Receipt) (lacking, error) {
	l := lacking{places: make(map[identity]int, len(receipts))}
	var fault error
	for i, r := range receipts {
		rule, err := r.Rule.Complete(r.At)
		if r.At.IsZero() {
			err = errors.New("revocation: Receipt.At is zero: set it to the time at which the rule was appended first")
		}
		if err == nil {
			err = checkLine(Receipt{At: r.At, Rule: rule})
		}
		if err != nil && fault == nil {
			fault = fmt.Errorf("revocation: Refill left out receipt %d: %w", i, err)
		}
		if err != nil {
			continue
		}
		r.Rule = rule
		id := identityOf(r)
		if _, ok := l.places[id]; !ok {
			l.places[id] = len(l.order)
			l.order = append(l.order, utc(r))
		}
	}
	return l, fault
}

// remove notes that the store has a receipt.
func (l lacking) remove(r Receipt) {
	if len(l.places) > 0 {
		delete(l.places, identityOf(r))
	}
}

// receipts returns what the store lacks, in the order of the refill.
func (l lacking) receipts() []Receipt {
	var all []Receipt
	for i, r := range l.order {
		if place, ok := l.places[identityOf(r)]; ok && place == i {
			all = append(all, r)
		}
	}
	return all
}

// seek removes the receipts that are in a file, from at to its end.
func (l lacking) seek(ctx context.Context, at *position, f io.ReaderAt, size int64) error {
	if len(l.places) == 0 {
		return nil
	}
	_, err := at.read(ctx, f, size, func(line *line) error {
		r, err := line.receipt()
		l.remove(r)
		return err
	})
	return err
}
