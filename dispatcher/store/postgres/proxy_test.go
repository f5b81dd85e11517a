package postgres_test

import (
	"bytes"
	"net"
	"sync"
	"testing"
	"time"
)

// proxy is a network between a store and its server that can fail.
type proxy struct {
	listener net.Listener
	target   string
	work     sync.WaitGroup

	mu     sync.Mutex
	links  map[*link]struct{}
	delay  time.Duration
	marker []byte // the answer to what carries it next is lost, with the connection
	lost   int
}

// link is a connection through the proxy.
type link struct {
	client, server net.Conn
	mu             sync.Mutex
	swallowed      bool // bytes go in and do not come out, as where the other side is gone without a word
	cut            bool // the next answer is lost
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, target: target, links: map[*link]struct{}{}}
	p.work.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.reset()
		p.work.Wait()
	})
	return p
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		l := &link{client: client, server: server}
		p.mu.Lock()
		p.links[l] = struct{}{}
		p.mu.Unlock()
		p.work.Go(func() { p.copy(l, client, server, true) })
		p.work.Go(func() { p.copy(l, server, client, false) })
	}
}

// copy passes bytes on, until one side is closed.
func (p *proxy) copy(l *link, from, to net.Conn, request bool) {
	defer p.close(l)
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		p.mu.Lock()
		delay := p.delay
		marked := request && p.marker != nil && bytes.Contains(buffer[:n], p.marker)
		if marked {
			p.marker = nil
			p.lost++
		}
		p.mu.Unlock()
		l.mu.Lock()
		l.cut = l.cut || marked
		cut, swallowed := l.cut && !request, l.swallowed
		l.mu.Unlock()
		if cut {
			return
		}
		if delay > 0 {
			t := time.NewTimer(delay)
			<-t.C
		}
		if swallowed {
			continue
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func (p *proxy) close(l *link) {
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
	for _, c := range []net.Conn{l.client, l.server} {
		_ = c.(*net.TCPConn).SetLinger(0) // a reset
		_ = c.Close()
	}
}

// reset cuts every connection.
func (p *proxy) reset() {
	p.mu.Lock()
	var all []*link
	for l := range p.links {
		all = append(all, l)
	}
	p.mu.Unlock()
	for _, l := range all {
		p.close(l)
	}
}

// swallow makes every connection that there is now half-open.
func (p *proxy) swallow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.mu.Lock()
		l.swallowed = true
		l.mu.Unlock()
	}
}

func (p *proxy) setDelay(delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = delay
}

// loseAnswersAfter passes the next request with the marker in it on, and cuts the connection instead of the answer.
func (p *proxy) loseAnswersAfter(marker string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.marker = []byte(marker)
}

func (p *proxy) cuts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

func (p *proxy) open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}
