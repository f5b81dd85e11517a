package apiserver

import (
	"encoding/json"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"

	v1alpha1 "github.com/clinikapi/eventflow/api/deliveries/v1alpha1"
)

func column(name, kind string, priority int32) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: kind, Priority: priority}
}

var deliveryColumns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name"}, column("State", "string", 0), column("Event", "string", 0), column("Subscription", "string", 0),
	column("Attempts", "integer", 0), column("Last", "string", 0), column("Next", "string", 0), column("Age", "string", 0), column("Reason", "string", 1),
}

var eventColumns = []metav1.TableColumnDefinition{
	{Name: "Name", Type: "string", Format: "name"}, column("Type", "string", 0), column("Matches", "integer", 0), column("Age", "string", 0),
}

// newTable is a table without rows.
func newTable(columns []metav1.TableColumnDefinition, meta metav1.ListMeta) *metav1.Table {
	return &metav1.Table{
		TypeMeta: metav1.TypeMeta{Kind: "Table", APIVersion: "meta.k8s.io/v1"}, ListMeta: meta, ColumnDefinitions: columns, Rows: []metav1.TableRow{},
	}
}

// maxCell keeps a table within 120 characters; -o wide and others show all.
const maxCell = 24

func short(text string) string {
	if len(text) > maxCell {
		return text[:maxCell-1] + "…"
	}
	return text
}

// since is how long ago, or until when.
func since(t *metav1.MicroTime, now time.Time) string {
	if t == nil {
		return ""
	}
	d := now.Sub(t.Time)
	if d < 0 {
		d = -d
	}
	return duration.HumanDuration(d)
}

// row is an object's row, with its metadata alone, as kubectl asks for.
func row(meta *metav1.ObjectMeta, cells ...any) metav1.TableRow {
	partial := metav1.PartialObjectMetadata{
		TypeMeta: metav1.TypeMeta{Kind: "PartialObjectMetadata", APIVersion: "meta.k8s.io/v1"}, ObjectMeta: *meta,
	}
	raw, err := json.Marshal(&partial)
	if err != nil { // not for metadata
		raw = nil
	}
	return metav1.TableRow{Cells: cells, Object: runtime.RawExtension{Raw: raw}}
}

func deliveryRow(d *v1alpha1.WebhookDelivery, now time.Time) metav1.TableRow {
	next := ""
	if t := d.Status.NextAttemptTime; t != nil {
		if next = "now"; t.After(now) {
			next = since(t, now)
		}
	}
	age := metav1.NewMicroTime(d.CreationTimestamp.Time)
	return row(&d.ObjectMeta, d.Name, string(d.Status.State), short(d.Status.Event.Type), short(d.Status.Subscription),
		d.Status.AttemptCount, since(d.Status.LastAttemptTime, now), next, since(&age, now), d.Status.Reason)
}

func eventRow(e *v1alpha1.WebhookEvent, now time.Time) metav1.TableRow {
	return row(&e.ObjectMeta, e.Name, e.Status.Type, len(e.Status.Matches), since(&e.Status.Time, now))
}

func listMeta(revision uint64, token string) metav1.ListMeta {
	return metav1.ListMeta{ResourceVersion: strconv.FormatUint(revision, 10), Continue: token}
}
