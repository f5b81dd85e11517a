package simulation

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// operations are what users do to deliveries, and in which state they look for some.
var operations = []struct{ name, state string }{
	{"cancel", "Pending"}, {"cancel", "Scheduled"}, {"cancel", "Scheduled"}, {"sendnow", "Scheduled"}, {"replay", "Failed"},
}

// operate is a user that does something to one of the tenant's deliveries, if there is one.
func (w *world) operate(ctx context.Context, s step) {
	operation := operations[s.n%len(operations)]
	all, err := w.lists(ctx, s.tenant, operation.state)
	if err != nil || len(all) == 0 {
		return
	}
	chosen := all[s.n%len(all)]
	id, err := w.pair(chosen)
	if err != nil {
		w.violated("unreadable: %v", err)
		return
	}
	w.model.asks(operation.name, id)
	url := fmt.Sprintf("http://%s/v1/namespaces/%s/deliveries/%s/%s", apiAddress, w.history.tenants[s.tenant].name, chosen.ID, operation.name)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, http.NoBody)
	if err != nil {
		panic(err)
	}
	request.Header.Set("Authorization", "Bearer "+w.cluster.current(s.tenant).String())
	response, err := w.producer(s.tenant).Do(request)
	if err != nil {
		return
	}
	_ = response.Body.Close()
	if response.StatusCode/100 == 2 {
		w.model.hears(operation.name, id)
	}
}

// asked is what users asked for a delivery. Times are zero for what they did not ask for, or did not hear of.
type asked struct {
	cancel, sendNow, replay time.Time // for the first time
	cancelled               time.Time // acknowledged
}

// asks notes that a user asks for something. Whether it is heard of or not, it may happen.
func (m *model) asks(operation string, id pairOf) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.asked[id]
	if a == nil {
		a = &asked{}
		m.asked[id] = a
	}
	first := map[string]*time.Time{"cancel": &a.cancel, "sendnow": &a.sendNow, "replay": &a.replay}[operation]
	if first.IsZero() {
		*first = time.Now()
	}
}

// hears notes that it was acknowledged.
func (m *model) hears(operation string, id pairOf) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.operated++
	if a := m.asked[id]; operation == "cancel" && a.cancelled.IsZero() {
		a.cancelled = time.Now()
	}
}

// wishes are what users asked for a delivery.
func (m *model) wishes(id pairOf) asked {
	if a := m.asked[id]; a != nil {
		return *a
	}
	return asked{}
}
