package postgres

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestClock(t *testing.T) {
	t.Parallel()
	const second = int64(time.Second)
	for name, test := range map[string]struct {
		last      int64           // newest acceptance, when the clock is asked first
		database  []time.Duration // how far the database's clock is from this process's, second by second
		wantFirst time.Duration   // how far the estimate is, at first
		wantLast  time.Duration   // and in the end
		wantLeads bool
	}{
		"it agrees":                     {database: []time.Duration{0, 0, 0}},
		"it drifts":                     {database: []time.Duration{0, 20 * time.Millisecond}, wantLast: 20 * time.Millisecond},
		"it is a little behind":         {database: []time.Duration{0, -200 * time.Millisecond, -200 * time.Millisecond}, wantLast: -100 * time.Millisecond},
		"it is set back":                {database: []time.Duration{0, -time.Hour, -time.Hour}, wantLast: -100 * time.Millisecond, wantLeads: true},
		"it is set back and mended":     {database: []time.Duration{0, -time.Hour, 0, 0}},
		"it is set forward":             {database: []time.Duration{0, time.Hour}, wantLast: time.Hour},
		"it was set back before":        {last: second * 1e9, database: []time.Duration{-time.Hour}, wantLeads: true},
		"it was set back, events go on": {last: second*1e9 - second, database: []time.Duration{-time.Hour}, wantFirst: -time.Second, wantLast: -time.Second, wantLeads: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var c clock
				start := time.Now()
				truth := func() int64 { return second*1e9 + int64(time.Since(start)) }
				var before int64
				for n, off := range test.database {
					c.sample(time.Now(), time.Now(), truth()+int64(off), test.last)
					if got := time.Duration(c.now() - truth()); n == 0 && got != test.wantFirst {
						t.Errorf("at first it is %s off, want %s", got, test.wantFirst)
					}
					for range 100 {
						if now := c.now(); now < before {
							t.Fatalf("it went back by %s", time.Duration(before-now))
						}
						before = c.now()
						<-time.After(10 * time.Millisecond)
					}
				}
				if got := time.Duration(c.now() - truth()); got != test.wantLast {
					t.Errorf("in the end it is %s off, want %s", got, test.wantLast)
				}
				if c.leads() != test.wantLeads {
					t.Errorf("leads is %t, want %t", c.leads(), test.wantLeads)
				}
			})
		})
	}
}
