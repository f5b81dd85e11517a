package postgres_test

import (
	"errors"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/store/postgres/postgrestest"
)

// TestBehindPooler works through a pooler that hands out another connection for each transaction, and that may not know
// prepared statements.
func TestBehindPooler(t *testing.T) {
	t.Parallel()
	url, stop, err := server.Pooler("postgres")
	if errors.Is(err, postgrestest.ErrNoPooler) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	c := newCluster(t, url, 20)
	a, b := c.start("a"), c.start("b")
	c.eventually("two share", patience, func() bool { return a.owned() == 32 && b.owned() == 32 })
	l := c.load(8, 2*time.Millisecond, a, b)
	c.eventually("events are accepted", patience, func() bool { return l.count() > 1000 })
	l.audit()
}
