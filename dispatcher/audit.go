package dispatcher

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/clinikapi/eventflow/dispatcher/audit"
	"github.com/clinikapi/eventflow/dispatcher/listener"
)

// openAudit begins the audit trail, if there is to be one.
func (d *dispatcher) openAudit() (err error) {
	logger := d.Logger.WithName("audit")
	d.audit, err = audit.Open(audit.Options{
		Level: d.auditLevel, File: d.AuditFile, Registerer: d.registry,
		Failed: func(err error) { logger.Error(err, "The audit trail cannot be written; trying again") },
	})
	if err != nil {
		return fmt.Errorf("--audit-file: %w", err)
	}
	return nil
}

// auditShown records requests of the deliveries API, whose users kube-apiserver names. They are recorded when the answer begins:
// a watch may go on for hours.
func (d *dispatcher) auditShown(next http.Handler) http.Handler {
	if d.audit == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		record, level, ok := shownRecord(r)
		if !ok || !d.audit.Records(level) {
			next.ServeHTTP(w, r)
			return
		}
		user := d.shown.userOf(r)
		if user == nil || user.Username == "" {
			next.ServeHTTP(w, r)
			return
		}
		record.User = user.Username
		noted := &noticing{ResponseWriter: w, began: func(status int) {
			record.Status = status
			d.audit.Add(level, record)
		}}
		next.ServeHTTP(noted, r)
		noted.begin(http.StatusOK)
	})
}

// shownRecord reads a request for deliveries, as kube-apiserver passes it on: …/namespaces/NS/webhookdeliveries/ID/replay. It is
// false for discovery.
func shownRecord(r *http.Request) (audit.Record, audit.Level, bool) {
	record, level := audit.Record{Source: listener.Source(r.RemoteAddr)}, audit.Reads
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if len(parts) < 4 || parts[0] != "apis" {
		return record, level, false
	}
	parts = parts[3:] // behind group and version
	if len(parts) >= 2 && parts[0] == "namespaces" {
		record.Namespace, parts = strings.Clone(parts[1]), parts[2:]
	}
	if len(parts) == 0 {
		return record, level, false
	}
	if len(parts) > 1 {
		record.Delivery = strings.Clone(parts[1])
	}
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		level, record.Action = audit.Writes, strings.ToLower(r.Method)
		if len(parts) > 2 {
			record.Action = strings.Clone(parts[2])
		}
	case record.Delivery != "":
		record.Action = "get"
	case strings.Contains(r.URL.RawQuery, "watch="):
		record.Action = "watch"
	default:
		record.Action = "list"
	}
	return record, level, true
}

// noticing tells once that an answer begins.
type noticing struct {
	http.ResponseWriter
	began func(status int)
	told  bool
}

func (n *noticing) begin(status int) {
	if !n.told {
		n.told = true
		n.began(status)
	}
}

// WriteHeader begins the answer.
func (n *noticing) WriteHeader(status int) {
	n.begin(status)
	n.ResponseWriter.WriteHeader(status)
}

// Write begins the answer, if nothing did.
func (n *noticing) Write(text []byte) (int, error) {
	n.begin(http.StatusOK)
	return n.ResponseWriter.Write(text)
}

// Unwrap is for http.ResponseController.
func (n *noticing) Unwrap() http.ResponseWriter { return n.ResponseWriter }
