package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// publisher is one connection to the publish API.
type publisher struct {
	address string
	from    string        // local IP address; the system's choice if empty
	timeout time.Duration // of one publish; none if zero
	conn    net.Conn
	reader  *bufio.Reader
	request []byte
	answer  []byte
	head    message
}

func (p *publisher) close() {
	if p.conn != nil {
		_ = p.conn.Close()
		p.conn = nil
	}
}

// dial opens a connection to address from the local address from, which may be empty.
func dial(from, address string) (net.Conn, error) {
	d := net.Dialer{}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	return d.Dial("tcp", address)
}

// publish sends events and returns the answer's code, and for how long to wait if that asks to.
func (p *publisher) publish(post post, ids []identity, batch bool) (code int, wait time.Duration, err error) {
	if p.conn == nil {
		if p.conn, err = dial(p.from, p.address); err != nil {
			return 0, 0, err
		}
		p.reader = bufio.NewReader(p.conn)
	}
	if p.timeout > 0 {
		_ = p.conn.SetDeadline(time.Now().Add(p.timeout))
	}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	p.request = post.append(p.request[:0], ids, batch)
	if _, err = p.conn.Write(p.request); err != nil {
		return 0, 0, fmt.Errorf("publish: %w", err)
	}
	if err = readMessage(p.reader, &p.head); err != nil {
		return 0, 0, fmt.Errorf("read the answer to a publish: %w", err)
	}
	if p.answer, err = readBody(p.reader, &p.head, p.answer); err != nil {
		return 0, 0, err
	}
	code, err = p.head.status()
	return code, time.Duration(p.head.retryAfter) * time.Second, err
}

// load is one run's publishing.
type load struct {
	plan
	address    string
	publishers int
	batch      int // events in a request; a request's events are of one group

	// What hostile runs set; see newLoad for the defaults.
	first    int                   // the first group's number, so that loads share a dispatcher
	stubborn bool                  // goes on after a connection failed: the dispatcher is killed meanwhile
	token    func(identity) string // that an event is published with; none if nil
	from     string                // local address of the publishers
	data     []byte                // of each event
	timeout  time.Duration         // of one publish

	next     atomic.Int64
	accepted []atomic.Bool // by event
	refused  atomic.Int64  // requests answered with 429 or 503, or that failed where that is forgiven
	broken   atomic.Int64  // those that failed
	busy     atomic.Int64  // those answered with 429
	lateness []time.Duration
	started  time.Time
	answers  answerTimes
}

// answerTimes are how long publishes took.
type answerTimes struct {
	sync.Mutex
	all []time.Duration
}

func newLoad(p plan, address string, publishers, batch int) *load {
	return &load{plan: p, address: address, publishers: publishers, batch: batch, data: data, accepted: make([]atomic.Bool, p.Events)}
}

// namespaceOf returns the namespace of a group.
func namespaceOf(group int) string { return "clinic-" + strconv.Itoa(group) }

// post is how an event is published.
func (l *load) post(id identity) post {
	p := post{namespace: namespaceOf(l.first + id.number%l.Groups), data: l.data}
	if l.token != nil {
		p.token = l.token(id)
	}
	return p
}

// send publishes events and notes that they were accepted. It waits and repeats where the API asks for that.
func (l *load) send(ctx context.Context, p *publisher, ids []identity) error {
	for {
		start := time.Now()
		code, wait, err := p.publish(l.post(ids[0]), ids, l.batch > 1)
		if err != nil && l.stubborn {
			l.broken.Add(1)
			code, wait, err = http.StatusServiceUnavailable, time.Second/2, nil
		}
		if err != nil {
			return err
		}
		switch code {
		case http.StatusAccepted, http.StatusOK:
			l.answers.Lock()
			l.answers.all = append(l.answers.all, time.Since(start))
			l.answers.Unlock()
			for _, id := range ids {
				l.accepted[id.number].Store(true)
			}
			return nil
		case http.StatusTooManyRequests, http.StatusServiceUnavailable:
			l.refused.Add(1)
			if code == http.StatusTooManyRequests {
				l.busy.Add(1)
			}
			select {
			case <-time.After(max(wait, 100*time.Millisecond)):
			case <-ctx.Done():
				return ctx.Err()
			}
		default:
			return fmt.Errorf("a publish was answered with %d: %s", code, p.answer)
		}
	}
}

// closedLoop publishes the run's events as fast as they are answered: each publisher sends its next request when it has
// the answer to the one before.
func (l *load) closedLoop(ctx context.Context) error {
	l.started = time.Now()
	return l.work(func(p *publisher) error {
		ids := make([]identity, 0, l.batch)
		for ctx.Err() == nil {
			// The requests take turns among the groups; each takes the next batch of its group's events.
			request := int(l.next.Add(1)) - 1
			first := request/l.Groups*l.Groups*l.batch + request%l.Groups
			if first >= l.Events {
				return nil
			}
			ids = ids[:0]
			now := time.Now()
			for n := first; len(ids) < l.batch && n < l.Events; n += l.Groups {
				ids = append(ids, identity{run: l.Run, number: n, sent: now})
			}
			if err := l.send(ctx, p, ids); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
}

// openLoop publishes the run's events at a steady rate, whatever the answers take. An event's time is when it should have
// been sent, so that a wait for a free publisher counts.
func (l *load) openLoop(ctx context.Context, perSecond float64) error {
	l.started = time.Now()
	due := make(chan identity, l.Events)
	go func() {
		defer close(due)
		l.pace(ctx, perSecond, due)
	}()
	return l.work(func(p *publisher) error {
		for id := range due {
			if err := l.send(ctx, p, []identity{id}); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
}

// pace hands out each event when it is to be sent. Timers of the runtime are too coarse for this: they fire up to a
// millisecond late.
func (l *load) pace(ctx context.Context, perSecond float64, due chan<- identity) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	interval := time.Duration(float64(time.Second) / perSecond)
	for n := 0; n < l.Events && ctx.Err() == nil; n++ {
		at := l.started.Add(time.Duration(n) * interval)
		for wait := time.Until(at); wait > 0; wait = time.Until(at) {
			spec := syscall.NsecToTimespec(int64(wait))
			_ = syscall.Nanosleep(&spec, nil) // an interrupted sleep goes on
		}
		due <- identity{run: l.Run, number: n, sent: at}
		l.lateness = append(l.lateness, time.Since(at))
	}
}

// work runs f for every publisher.
func (l *load) work(f func(*publisher) error) error {
	var group sync.WaitGroup
	errs := make([]error, l.publishers)
	for i := range l.publishers {
		group.Go(func() {
			p := &publisher{address: l.address, from: l.from, timeout: l.timeout}
			defer p.close()
			errs[i] = f(p)
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// audit compares what was acknowledged with what arrived at the endpoints that answer.
type audit struct {
	Acknowledged, Expected, Missing, Duplicates, Misrouted int
	// Unacknowledged arrived although its publish was not answered, which is allowed.
	Unacknowledged int
}

// check audits the run. answering tells which of a group's endpoints answer.
func (l *load) check(seen []byte, answering func(endpoint int) bool) audit {
	var a audit
	for n := range l.accepted {
		accepted := l.accepted[n].Load()
		if accepted {
			a.Acknowledged++
		}
		for k := range l.Fan {
			arrived := int(seen[n*l.Fan+k] &^ failedBit)
			switch {
			case !answering(n%l.Groups*l.Fan + k):
			case !accepted:
				a.Unacknowledged += arrived
			case arrived == 0:
				a.Expected++
				a.Missing++
			default:
				a.Expected++
			}
		}
	}
	return a
}

// String says what arrived, in one line.
func (a audit) String() string {
	parts := []string{fmt.Sprintf("%d of %d arrived", a.Expected-a.Missing, a.Expected)}
	if a.Duplicates > 0 {
		parts = append(parts, fmt.Sprintf("%d twice", a.Duplicates))
	}
	if a.Misrouted > 0 {
		parts = append(parts, fmt.Sprintf("%d MISROUTED", a.Misrouted))
	}
	return strings.Join(parts, ", ")
}
