package revocation

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"time"
)

func File(path string) Store { return &sketchFile{path} }

type sketchFile struct{ path string }

func (f *sketchFile) read() (all []Receipt) {
	b, _ := os.ReadFile(f.path)
	s := bufio.NewScanner(bytes.NewReader(b))
	for s.Scan() {
		var r Receipt
		if json.Unmarshal(s.Bytes(), &r) == nil {
			all = append(all, r)
		}
	}
	return all
}
func (f *sketchFile) Append(ctx context.Context, r Rule) (Receipt, error) {
	now := time.Now().UTC()
	r, err := r.Complete(now)
	if err != nil {
		return Receipt{}, err
	}
	receipt := Receipt{uint64(len(f.read()) + 1), now, r}
	b, _ := json.Marshal(receipt)
	w, err := os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return Receipt{}, err
	}
	defer w.Close()
	_, err = w.Write(append(b, '\n'))
	return receipt, err
}
func (f *sketchFile) Follow(ctx context.Context, from uint64, apply func(Receipt), current func(time.Time)) error {
	for {
		for _, r := range f.read() {
			if r.Seq > from {
				apply(r)
				from = r.Seq
			}
		}
		current(time.Now())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}
