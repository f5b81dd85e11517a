package browser

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience bounds each wait.
const patience = 90 * time.Second

// images is where pictures are kept; empty makes none.
var images = os.Getenv("IMAGES")

// panel is a browser at a console.
type panel struct {
	t    *testing.T
	ctx  context.Context
	base string
	axe  string
}

// open starts eventflow console with the given arguments, and a browser that opened its launch address.
func open(t *testing.T, arguments ...string) *panel {
	t.Helper()
	program, axe := os.Getenv("EVENTFLOW"), os.Getenv("AXE")
	chromium, err := exec.LookPath("chromium")
	if program == "" || axe == "" || err != nil {
		t.Skip("needs chromium, EVENTFLOW (the binary) and AXE (axe.min.js)")
	}
	script, err := os.ReadFile(axe)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	command := exec.CommandContext(ctx, program, append([]string{"console", "--open=false"}, arguments...)...)
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.Stderr = os.Stderr
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(); _ = command.Wait() })
	link := ""
	for scanner := bufio.NewScanner(out); link == "" && scanner.Scan(); {
		link = regexp.MustCompile(`http://\S+`).FindString(scanner.Text())
	}
	allocator, cancel := chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium), chromedp.NoSandbox, chromedp.WSURLReadTimeout(patience))...)
	t.Cleanup(cancel)
	tab, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	p := &panel{t: t, ctx: tab, base: link[:strings.Index(link, "/launch")], axe: string(script)}
	if err := chromedp.Run(tab); err != nil { // the browser lives as long as the context of this call
		t.Fatal(err)
	}
	chromedp.ListenTarget(tab, func(event any) {
		if e, ok := event.(*log.EventEntryAdded); ok && strings.Contains(e.Entry.Text, "Content Security Policy") {
			t.Errorf("a page violates its policy: %s", e.Entry.Text)
		}
	})
	p.run(log.Enable(), chromedp.Navigate(link), chromedp.WaitVisible("h1", chromedp.ByQuery))
	return p
}

// run runs actions within patience.
func (p *panel) run(actions ...chromedp.Action) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Run(ctx, actions...); err != nil {
		p.t.Fatal(err)
	}
}

// until reloads a page until its main part has a text.
func (p *panel) until(path, text string) {
	p.t.Helper()
	var shown string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		p.run(chromedp.Navigate(p.base+path), chromedp.Text("main", &shown, chromedp.ByQuery))
		if strings.Contains(shown, text) {
			return
		}
		<-time.After(500 * time.Millisecond)
	}
	p.t.Fatalf("%s never showed %q: %s", path, text, shown)
}

// audit looks at a page in both themes and at both widths: axe finds nothing. A picture of each theme is kept.
func (p *panel) audit(name, path string) {
	p.t.Helper()
	p.t.Logf("audit %s at %s", name, path)
	for _, theme := range []string{"light", "dark"} {
		for _, width := range []int64{360, 1440} {
			result := ""
			p.run(
				chromedp.EmulateViewport(width, 900),
				emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}, {Name: "prefers-reduced-motion", Value: "reduce"}}),
				chromedp.Navigate(p.base+path), chromedp.WaitVisible("h1", chromedp.ByQuery),
				chromedp.Evaluate(p.axe+";0", nil),
				chromedp.Evaluate(`axe.run().then(r => JSON.stringify(r.violations.map(v => v.id + ": " + v.nodes.map(n => n.html.slice(0, 160) + " " + n.any.map(a => a.message).join()).join(" | "))))`,
					&result, func(e *runtime.EvaluateParams) *runtime.EvaluateParams { return e.WithAwaitPromise(true) }),
			)
			var found []string
			if err := json.Unmarshal([]byte(result), &found); err != nil {
				p.t.Fatal(err)
			}
			for _, f := range found {
				p.t.Errorf("%s, %s, %d px: %s", name, theme, width, f)
			}
			p.fits(name, width)
			if images != "" && (width == 1440 || name == "subscriptions" || name == "subscription") {
				p.picture(fmt.Sprintf("%s-%s-%d.png", name, theme, width), width)
			}
		}
	}
}

// fits reports a page that is wider than the screen.
func (p *panel) fits(name string, width int64) {
	p.t.Helper()
	wide := 0
	p.run(chromedp.Evaluate(`document.documentElement.scrollWidth`, &wide))
	if int64(wide) > width {
		p.t.Errorf("%s: %d px wide on a screen of %d", name, wide, width)
	}
}

// shows reports what the main part of the page lacks.
func (p *panel) shows(texts ...string) {
	p.t.Helper()
	shown := ""
	p.run(chromedp.Text("main", &shown, chromedp.ByQuery))
	for _, text := range texts {
		if !strings.Contains(shown, text) {
			p.t.Errorf("the page does not show %q: %s", text, shown)
		}
	}
}

func (p *panel) picture(name string, width int64) {
	p.t.Helper()
	var picture []byte
	p.run(chromedp.EmulateViewport(width, 900), chromedp.ActionFunc(func(ctx context.Context) (err error) {
		picture, err = page.CaptureScreenshot().WithFormat(page.CaptureScreenshotFormatPng).WithOptimizeForSpeed(false).Do(ctx)
		return err
	}))
	if err := os.WriteFile(filepath.Join(images, name), picture, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// endpoint is a receiver that can be broken.
func endpoint(t *testing.T) (address string, broken *atomic.Bool) {
	t.Helper()
	broken = &atomic.Bool{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			http.Error(w, "broken", http.StatusServiceUnavailable)
		}
	}))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	return server.URL + "/hooks", broken
}

// TestMainFlow: create, Ready, test event, delivered, break, failing, mend, replay; then each page is audited.
func TestMainFlow(t *testing.T) {
	namespace := os.Getenv("PANEL_NAMESPACE")
	if namespace == "" {
		t.Skip("PANEL_NAMESPACE and PANEL_FLAGS name a running Event Flow")
	}
	p := open(t, strings.Fields(os.Getenv("PANEL_FLAGS"))...)
	address, broken := endpoint(t)
	name := fmt.Sprintf("panel-%d", time.Now().Unix())
	of := "/namespaces/" + namespace + "/subscriptions/" + name
	p.run(
		chromedp.EmulateViewport(1440, 900),
		chromedp.Navigate(p.base+"/subscriptions/new?namespace="+namespace),
		chromedp.SendKeys(`input[name=name]`, name, chromedp.ByQuery), chromedp.SendKeys(`input[name=url]`, address, chromedp.ByQuery),
		chromedp.Click(`input[value="lab.*"]`, chromedp.ByQuery), chromedp.Click(`input[value="patient.created"]`, chromedp.ByQuery),
		chromedp.SendKeys(`textarea[name=filter]`, `event.data.test == true`, chromedp.ByQuery),
		chromedp.WaitVisible(`#check .note.good`, chromedp.ByQuery), // the live check
	)
	if images != "" {
		p.picture("create-light-1440.png", 1440)
	}
	p.run(chromedp.Click(`.side button.primary`, chromedp.ByQuery), chromedp.WaitVisible(`.tiles`, chromedp.ByQuery))
	p.until(of, "An event published now is delivered")
	p.run(chromedp.Click(`form[action$="/test"] button`, chromedp.ByQuery), chromedp.WaitVisible(`[role=status]`, chromedp.ByQuery))
	p.until(of, "Delivered\tpatient.created")

	broken.Store(true)
	p.run(chromedp.Click(`form[action$="/test"] button`, chromedp.ByQuery), chromedp.WaitVisible(`[role=status]`, chromedp.ByQuery))
	p.until(of, "The last attempt failed")
	p.until("/subscriptions?q="+name+"&fresh=1", "Failing")
	failing := "/deliveries?namespace=" + namespace + "&subscription=" + name + "&state=Pending"
	p.until(failing, "patient.created")
	delivery := ""
	p.run(chromedp.AttributeValue(`tbody th a`, "href", &delivery, nil, chromedp.ByQuery))
	p.audit("subscriptions", "/subscriptions")
	p.audit("subscription", of)
	p.audit("deliveries", "/deliveries?namespace="+namespace)
	p.audit("delivery", delivery)
	p.audit("events", "/events?namespace="+namespace)
	p.audit("edit", of+"/edit")
	p.audit("rotate", of+"/rotate")
	p.audit("dispatchers", "/dispatchers")
	p.audit("try", "/try?namespace="+namespace+"&subscription="+name+"&type=lab.created")
	p.run(chromedp.Click(`form[method=post][action="/try"] button.primary`, chromedp.ByQuery), chromedp.WaitVisible(`h3 .chip`, chromedp.ByQuery))
	p.shows("event.data.test == true", "Does not match")
	p.run(chromedp.Navigate(p.base+delivery), chromedp.Click(`form[action$="/cancel"] button`, chromedp.ByQuery), chromedp.WaitVisible(`[role=status]`, chromedp.ByQuery))

	broken.Store(false)
	p.run(chromedp.Navigate(p.base+delivery), chromedp.Click(`form[action$="/replay"] button`, chromedp.ByQuery), chromedp.WaitVisible(`[role=status]`, chromedp.ByQuery))
	p.until(delivery, "Delivered")
}

// TestRebinding: a name that leads here by DNS is refused, whatever cookies the browser has.
func TestRebinding(t *testing.T) {
	p := open(t, "--folder="+t.TempDir())
	port := p.base[strings.LastIndex(p.base, ":"):]
	shown := ""
	p.run(chromedp.Navigate("http://rebound.localhost"+port+"/subscriptions"), chromedp.Text("body", &shown, chromedp.ByQuery))
	if !strings.Contains(shown, "does not answer to this host name") {
		t.Errorf("it answered: %s", shown)
	}
}
