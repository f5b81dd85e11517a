package status

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// TestOrder: tenants take turns, of each the greatest lie comes first, and news has three of four turns.
func TestOrder(t *testing.T) {
	t.Parallel()
	type item struct {
		name string // its first letter is the tenant
		wrong
	}
	for name, test := range map[string]struct {
		queued []item
		told   []item // then
		want   []string
	}{
		"one tenant":          {queued: []item{{"a1", wrong{1, false}}, {"a2", wrong{3, false}}, {"a3", wrong{2, false}}}, want: []string{"a2", "a3", "a1"}},
		"first come":          {queued: []item{{"a1", wrong{}}, {"a2", wrong{}}}, want: []string{"a1", "a2"}},
		"tenants take turns":  {queued: []item{{"a1", wrong{9, false}}, {"a2", wrong{8, false}}, {"a3", wrong{7, false}}, {"b1", wrong{1, false}}, {"c1", wrong{2, false}}}, want: []string{"a1", "b1", "c1", "a2", "a3"}},
		"news":                {queued: []item{{"a1", wrong{wrongHealth, false}}, {"b1", wrong{wrongHealth, true}}}, want: []string{"b1", "a1"}},
		"news is not all":     {queued: []item{{"a1", wrong{}}, {"a2", wrong{}}, {"b1", wrong{1, true}}, {"b2", wrong{1, true}}, {"b3", wrong{1, true}}, {"b4", wrong{1, true}}}, want: []string{"b1", "b2", "b3", "a1", "b4", "a2"}},
		"it became news":      {queued: []item{{"a1", wrong{2, false}}, {"a2", wrong{1, false}}}, told: []item{{"a2", wrong{1, true}}}, want: []string{"a2", "a1"}},
		"it stays news":       {queued: []item{{"a1", wrong{1, true}}, {"b1", wrong{1, true}}}, told: []item{{"a1", wrong{0, false}}}, want: []string{"a1", "b1"}},
		"it keeps its turn":   {queued: []item{{"a1", wrong{1, false}}, {"b1", wrong{1, false}}}, told: []item{{"a1", wrong{2, false}}}, want: []string{"a1", "b1"}},
		"it became more":      {queued: []item{{"a1", wrong{2, false}}, {"a2", wrong{1, false}}}, told: []item{{"a2", wrong{3, false}}}, want: []string{"a2", "a1"}},
		"told before its day": {told: []item{{"a9", wrong{1, false}}}, want: []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			names := map[event.SubscriptionKey]string{}
			o := newOrder(func(key event.SubscriptionKey) string { return names[key][:1] })
			for _, i := range test.queued {
				key := event.NewSubscriptionKey(i.name)
				names[key] = i.name
				o.tell(key, i.wrong)
				o.Push(key)
			}
			for _, i := range test.told {
				o.tell(event.NewSubscriptionKey(i.name), i.wrong)
			}
			got := []string{}
			for o.Len() > 0 {
				got = append(got, names[o.Pop()])
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("%v, want %v", got, test.want)
			}
			if len(o.news.tenants)+len(o.rest.tenants)+len(o.news.lies)+len(o.rest.lies) != 0 {
				t.Errorf("what is empty is kept: %+v", o)
			}
		})
	}
}

// routeOf is a route of a tenant.
func routeOf(tenant, name string) *routing.Route {
	r := route(name, 1)
	r.Namespace, r.Endpoint.Tenant = tenant, tenant
	return r
}

// TestFlappingOfOneDelaysNoOther: while a thousand endpoints of other tenants flap, the health of one that rested is shown within
// two seconds, and each tenant's counts go on being shown.
func TestFlappingOfOneDelaysNoOther(t *testing.T) {
	t.Parallel()
	for name, tenants := range map[string]int{"one tenant flaps": 1, "two hundred tenants flap": 200} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFakes()
				w, stop := start(t, f)
				defer stop()
				var routes []*routing.Route
				for i := range 1000 {
					routes = append(routes, routeOf(fmt.Sprintf("flapping-%d", i%tenants), fmt.Sprint(i)))
				}
				quiet, busy := routeOf("quiet", "quiet"), routeOf("busy", "busy")
				all := append(slices.Clone(routes), quiet, busy)
				f.stand(all...)
				w.Use(table(t, all...))
				advance(time.Second)
				flap := func(seconds int) {
					for i := range seconds {
						for _, r := range routes {
							f.set(w, r.Key, func(c *delivery.Counts) {
								c.Delivered++
								c.LastDelivered = epoch.Add(time.Duration(c.Delivered) * time.Second)
								c.FailuresInARow = i % 2
							})
						}
						f.set(w, busy.Key, func(c *delivery.Counts) { c.Delivered++; c.LastDelivered = epoch })
						advance(time.Second)
					}
				}
				flap(60)
				shown := *f.status("busy").Deliveries.Delivered
				for minute := range 3 {
					f.set(w, quiet.Key, func(c *delivery.Counts) { c.FailuresInARow = 10 * (1 - minute%2); c.LastDelivered = epoch })
					flap(2)
					if got, want := f.condition("quiet", "EndpointHealthy").Status, []string{"False", "True"}[minute%2]; string(got) != want {
						t.Errorf("after two seconds, EndpointHealthy of one that rested is %s, want %s", got, want)
					}
					flap(118)
				}
				if now := *f.status("busy").Deliveries.Delivered; now < shown+300-60 {
					t.Errorf("the counts of another tenant are %d behind", shown+300-now)
				}
			})
		})
	}
}
