package monitoring

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const patience = 90 * time.Second

const manifest = `
apiVersion: v1
kind: Secret
metadata: {name: keys, namespace: clinic-a}
stringData: {current: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}
---
apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookSubscription
metadata: {name: all, namespace: clinic-a}
spec:
  url: %s
  events: ["*"]
  signing: {secretRef: {name: keys, key: current}}
  retry: {initialDelay: 1s, factor: 1, maxDelay: 1s, maxAttempts: 1}
`

// dispatcher is a real one, with an endpoint and a certificate that can be broken.
type dispatcher struct {
	*testing.T
	dir, api, ops string
	broken        atomic.Bool
	events        int
	process       *exec.Cmd
}

func startDispatcher(t *testing.T) *dispatcher {
	t.Helper()
	d := &dispatcher{T: t, dir: t.TempDir()}
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if d.broken.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(endpoint.Close)
	program := filepath.Join(d.dir, "eventflow")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := errors.Join(os.Mkdir(filepath.Join(d.dir, "routes"), 0o700),
		os.WriteFile(filepath.Join(d.dir, "routes", "all.yaml"), fmt.Appendf(nil, manifest, endpoint.URL), 0o600)); err != nil {
		t.Fatal(err)
	}
	d.certify(90 * 24 * time.Hour)
	d.process = exec.Command(program, "dispatcher", "--store=pebble:store", "--routes=routes", "--ingest-auth=none", "--egress-allow-http",
		"--egress-allow-cidr=127.0.0.0/8", "--listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0", "--drain-delay=1s", "--tls-cert-file=tls.crt", "--tls-key-file=tls.key")
	d.process.Dir = d.dir
	log, err := d.process.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.process.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan [2]string, 1)
	go func() {
		for lines := bufio.NewScanner(log); lines.Scan(); {
			var entry struct{ API, Ops string }
			if json.Unmarshal(lines.Bytes(), &entry) == nil && entry.API != "" {
				ready <- [2]string{entry.API, entry.Ops}
			}
		}
	}()
	t.Cleanup(d.stop)
	select {
	case at := <-ready:
		d.api, d.ops = at[0], at[1]
	case <-time.After(patience):
		t.Fatal("the dispatcher did not become ready")
	}
	return d
}

func (d *dispatcher) stop() {
	_ = d.process.Process.Kill()
	_ = d.process.Wait()
}

// certify replaces the dispatcher's certificate by one that ends after a while.
func (d *dispatcher) certify(left time.Duration) {
	d.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		d.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(left), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		d.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		d.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"tls.key": {Type: "EC PRIVATE KEY", Bytes: private}, "tls.crt": {Type: "CERTIFICATE", Bytes: der}} {
		if err := os.WriteFile(filepath.Join(d.dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			d.Fatal(err)
		}
	}
}

// publish publishes n events.
func (d *dispatcher) publish(n int) {
	d.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // its own
	defer client.CloseIdleConnections()
	for range n {
		d.events++
		body := fmt.Sprintf(`{"id": "evt-%d", "type": "patient.created", "data": {"id": "p1"}}`, d.events)
		response, err := client.Post("https://"+d.api+"/v1/namespaces/clinic-a/events", "application/json", strings.NewReader(body))
		if err != nil {
			d.Fatal(err)
		}
		text, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if response.StatusCode != http.StatusAccepted {
			d.Fatalf("%d: %s", response.StatusCode, text)
		}
	}
}

var sample = regexp.MustCompile(`(?m)^(\w+)(?:\{(.*)\})? (\S+)$`)

// scrape returns the dispatcher's samples, by series with the labels of a target. Times are counted from now.
func (d *dispatcher) scrape() map[string]float64 {
	d.Helper()
	response, err := http.Get("http://" + d.ops + "/metrics")
	if err != nil {
		d.Fatal(err)
	}
	defer response.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(response.Body); err != nil {
		d.Fatal(err)
	}
	all := map[string]float64{}
	for _, match := range sample.FindAllStringSubmatch(text.String(), -1) {
		value, err := strconv.ParseFloat(match[3], 64)
		if err != nil || value != value { // NaN, of an empty summary
			continue
		}
		if match[1] == "eventflow_certificate_expiry_timestamp_seconds" {
			value -= float64(time.Now().Unix())
		}
		labels := strings.Trim(match[2]+`,namespace="eventflow-system",webhookdispatcher="default",pod="default-1"`, ",")
		all[match[1]+"{"+labels+"}"] = value
	}
	return all
}

// until scrapes until a metric without labels, or with the given ones, fits.
func (d *dispatcher) until(series string, fits func(value float64) bool) map[string]float64 {
	d.Helper()
	ctx, cancel := context.WithTimeout(d.Context(), patience)
	defer cancel()
	for {
		all := d.scrape()
		for name, value := range all {
			if strings.HasPrefix(name, series) && fits(value) {
				return all
			}
		}
		select {
		case <-ctx.Done():
			d.Fatalf("%s does not fit", series)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// The phases, in minutes. What a scrape shows holds throughout its phase.
const (
	fine, broken, mended = 20, 40, 80
	end                  = fine + broken + mended
)

// replay are the series of the phases. A phase without a scrape has no samples: nobody answered.
func replay(phases ...map[string]float64) []string {
	values := map[string][]string{}
	lengths, before := []int{fine, broken, mended}, 0
	for i, phase := range phases {
		for name, value := range phase {
			for len(values[name]) < before {
				values[name] = append(values[name], "_")
			}
			for range lengths[i] {
				values[name] = append(values[name], strconv.FormatFloat(value, 'g', -1, 64))
			}
		}
		before += lengths[i]
	}
	var series []string
	for name, all := range values {
		if len(all) < before { // it ended, so Prometheus marks it
			all = append(all, "stale")
		}
		series = append(series, name+" "+strings.Join(all, " "))
	}
	return series
}

// TestAlertsOfARealDispatcher breaks an endpoint, a certificate and a process of a real dispatcher, and mends them. What its
// metrics show makes the alerts fire that are meant to, and no other; and resolves them.
func TestAlertsOfARealDispatcher(t *testing.T) {
	d := startDispatcher(t)
	d.publish(3)
	const failed, failing, expiry = `eventflow_delivery_finished_total{state="Failed"`, "eventflow_delivery_endpoints_failing{", "eventflow_certificate_expiry_timestamp_seconds{"
	before := d.until(`eventflow_delivery_finished_total{state="Delivered"`, func(v float64) bool { return v == 3 })
	d.broken.Store(true)
	d.certify(3 * 24 * time.Hour)
	d.publish(12)
	d.until(failed, func(v float64) bool { return v >= 10 })
	d.until(expiry, func(v float64) bool { return v < 7*86400 })
	wrong := d.until(failing, func(v float64) bool { return v == 1 })
	d.broken.Store(false)
	d.certify(90 * 24 * time.Hour)
	d.publish(1)
	d.until(expiry, func(v float64) bool { return v > 7*86400 })
	after := d.until(failing, func(v float64) bool { return v == 0 })
	d.stop()

	expect := func(t *testing.T, series []string, wanted ...string) {
		t.Helper()
		for _, group := range read(t) {
			for _, rule := range group.Rules {
				if rule.Alert == "EventflowManagerDown" { // there is none here
					continue
				}
				firing := scenario{series: series, resolved: end - 1}.run(t, alert(t, rule.Alert))
				ever := strings.Join(firing, "")
				want := false
				for _, name := range wanted {
					want = want || name == rule.Alert
				}
				if firing[fine-1] != "" || firing[end-1] != "" || want != (ever != "") {
					t.Errorf("%s: wanted %t, says %q; at first %q, at last %q", rule.Alert, want, ever, firing[fine-1], firing[end-1])
				}
			}
		}
	}
	t.Run("endpoint and certificate", func(t *testing.T) {
		expect(t, replay(before, wrong, after), "EventflowEndpointsFailing", "EventflowDeliveriesExhausted", "EventflowCertificateExpiring")
	})
	t.Run("no process", func(t *testing.T) {
		expect(t, replay(before, nil, before), "EventflowDispatcherDown")
	})
}
