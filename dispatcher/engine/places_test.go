package engine

import (
	"testing"
	"time"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
)

func TestPlacesAdmit(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		used  [rooms]int // by all
		mine  [rooms]int
		quota int
		in    room
		want  bool
	}{
		"an empty engine":                                   {in: prompt, want: true},
		"all places are taken":                              {used: [rooms]int{50, 0, 50}, in: prompt},
		"the tenant's one place where others took all":      {used: [rooms]int{50, 0, 25}, in: prompt, want: true},
		"no second one":                                     {used: [rooms]int{50, 0, 25}, mine: [rooms]int{1}, in: prompt},
		"four fifths for one tenant":                        {used: [rooms]int{39}, mine: [rooms]int{39}, in: prompt, want: true},
		"and no more":                                       {used: [rooms]int{40}, mine: [rooms]int{40}, in: prompt},
		"as much for a second one as is left":               {used: [rooms]int{40}, in: prompt, want: true},
		"unsure endpoints leave a quarter":                  {used: [rooms]int{0, 25, 50}, mine: [rooms]int{0, 1}, in: trial},
		"but for a tenant's first trial":                    {used: [rooms]int{0, 30, 57}, in: trial, want: true},
		"which leaves an eighth":                            {used: [rooms]int{0, 30, 58}, in: trial},
		"a first probe is no first trial":                   {used: [rooms]int{0, 25, 50}, in: patient},
		"of which prompt ones take some":                    {used: [rooms]int{0, 25, 50}, in: prompt, want: true},
		"a tenant's hanging ones keep its trials back":      {used: [rooms]int{0, 0, 60}, mine: [rooms]int{0, 0, 60}, in: trial},
		"not those of others":                               {used: [rooms]int{0, 0, 60}, in: trial, want: true},
		"a tenant's hanging ones do not keep prompt back":   {used: [rooms]int{0, 0, 60}, mine: [rooms]int{0, 0, 60}, in: prompt, want: true},
		"the quota counts all rooms":                        {used: [rooms]int{2, 2, 2}, mine: [rooms]int{2, 2, 2}, quota: 6, in: prompt},
		"patient overflows when prompt attempts outlast it": {used: [rooms]int{0, 0, 55}, in: patient},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := places{all: 100, used: test.used}
			if got := p.admits(test.in, &use{in: test.mine, quota: test.quota}); got != test.want {
				t.Errorf("admits is %t, want %t", got, test.want)
			}
		})
	}
}

func TestEvidence(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		result egress.Result
		want   evidence
	}{
		"delivered soon":   {egress.Result{StatusCode: 200, Duration: time.Millisecond}, quick},
		"refused soon":     {egress.Result{StatusCode: 500, Reason: delivery.ReasonStatusCode, Duration: time.Second}, quick},
		"delivered late":   {egress.Result{StatusCode: 200, Duration: 2 * time.Second}, late},
		"no answer":        {egress.Result{Reason: delivery.ReasonTimeout, Duration: 30 * time.Second}, silent},
		"refused to speak": {egress.Result{Reason: delivery.ReasonConnectionRefused}, silent},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := evidenceOf(test.result, time.Second); got != test.want {
				t.Errorf("evidence %d, want %d", got, test.want)
			}
		})
	}
}

func TestHold(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	asked := egress.Result{StatusCode: 429, Reason: delivery.ReasonStatusCode, RetryAfter: time.Hour}
	held := hold{active: true, until: now.Add(time.Hour), next: now.Add(time.Minute)}
	for name, test := range map[string]struct {
		before hold
		result egress.Result
		at     time.Time
		want   hold
	}{
		"asks to wait":                    {result: asked, at: now, want: held},
		"asks to wait a moment":           {result: egress.Result{StatusCode: 503, Reason: delivery.ReasonStatusCode, RetryAfter: time.Second}, at: now, want: hold{true, now.Add(time.Second), now.Add(time.Second)}},
		"for longer than deliveries live": {result: egress.Result{StatusCode: 429, RetryAfter: 1000 * time.Hour, Reason: delivery.ReasonStatusCode}, at: now, want: hold{true, now.Add(72 * time.Hour), now.Add(time.Minute)}},
		"a probe succeeds":                {before: held, result: egress.Result{StatusCode: 200}, at: now, want: hold{}},
		"a probe fails otherwise":         {before: held, result: egress.Result{StatusCode: 500, Reason: delivery.ReasonStatusCode}, at: now.Add(time.Minute), want: hold{true, held.until, now.Add(2 * time.Minute)}},
		"the last probe before the end":   {before: held, result: egress.Result{Reason: delivery.ReasonTimeout}, at: now.Add(59*time.Minute + 30*time.Second), want: hold{true, held.until, held.until}},
		"the first one after it fails":    {before: held, result: egress.Result{StatusCode: 500, Reason: delivery.ReasonStatusCode}, at: now.Add(time.Hour), want: hold{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := test.before.saw(test.result, test.at, 72*time.Hour); got != test.want {
				t.Errorf("hold %+v, want %+v", got, test.want)
			}
		})
	}
}
