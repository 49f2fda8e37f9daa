package koreredis

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed report.lua
	reportSource string
	//go:embed replicas.lua
	replicasSource string

	reportScript   = redis.NewScript(reportSource)
	replicasScript = redis.NewScript(replicasSource)
)

// remembered is how long a replica counts after its last report.
const remembered = 30 * time.Second

// Report implements [revocation.Fleet].
func (s *store) Report(ctx context.Context, replica string, seq uint64) error {
	s.mu.Lock()
	applied := fmt.Sprintf("%d %s", seq, s.epoch)
	s.mu.Unlock()
	err := wait(ctx, func() error {
		return reportScript.Run(ctx, s.client, []string{s.replicas, s.applied}, replica, applied, remembered.Milliseconds()).Err()
	})
	if err != nil {
		return s.end(ctx, "report to the fleet", err)
	}
	return nil
}

// Replicas implements [revocation.Fleet].
func (s *store) Replicas(ctx context.Context) (known, current int, err error) {
	var head []any
	var reports []string
	err = wait(ctx, func() (err error) {
		if head, err = s.client.HMGet(ctx, s.head, "epoch", "seq").Result(); err != nil {
			return err
		}
		reports, err = replicasScript.Run(ctx, s.client, []string{s.replicas, s.applied}, remembered.Milliseconds()).StringSlice()
		return err
	})
	if err != nil {
		return 0, 0, s.end(ctx, "ask for the fleet", err)
	}
	if len(head) != 2 {
		return 0, 0, s.explain(ctx, "ask for the fleet", errOdd)
	}
	epoch, _ := head[0].(string)
	last, _ := head[1].(string)
	newest, _ := strconv.ParseUint(last, 10, 64)
	for _, report := range reports {
		text, of, _ := strings.Cut(report, " ")
		seq, err := strconv.ParseUint(text, 10, 64)
		if err == nil && seq >= newest && (of == "" || of == epoch) {
			current++
		}
	}
	return len(reports), current, nil
}
