package expression

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"
)

// Variables are what an expression reads. A Use needs only its own; the others may be zero.
type Variables struct {
	Event        *Event
	Subscription *Subscription
	Now          time.Time
	Lookup       *Document
	Delivery     *Delivery
	Response     *Response
}

// evaluation is one evaluation: its variables and its meter.
type evaluation struct {
	meter
	variables Variables
	// bound replaces the variables in tests.
	bound map[string]any
}

// ResolveName implements interpreter.Activation.
func (e *evaluation) ResolveName(name string) (any, bool) {
	if value, ok := e.bound[name]; ok {
		return value, true
	}
	switch name {
	case meterName:
		return &e.meter, true
	case "event":
		return orAbsent(e.variables.Event), true
	case "subscription":
		return orAbsent(e.variables.Subscription), true
	case "delivery":
		return orAbsent(e.variables.Delivery), true
	case "response":
		return orAbsent(e.variables.Response), true
	case "now":
		return types.Timestamp{Time: e.variables.Now}, true
	case "lookup":
		value, err := e.variables.Lookup.read()
		if err != nil {
			return types.WrapErr(err), true
		}
		return value, true
	}
	return nil, false
}

// Parent implements interpreter.Activation.
func (e *evaluation) Parent() interpreter.Activation { return nil }

func orAbsent[T any, P interface {
	*T
	ref.Val
}](value P) any {
	if value == nil {
		return types.NullValue
	}
	return value
}

// record is a variable with fixed fields. A field that has no value is nil.
type record interface {
	ref.Val
	field(id int64, key ref.Val) (ref.Val, error)
}

// opaque is the ref.Val of a record, which expressions can only look into.
type opaque struct {
	kind *types.Type
}

func (v opaque) Type() ref.Type          { return v.kind }
func (v opaque) Value() any              { return nil }
func (v opaque) Equal(_ ref.Val) ref.Val { return types.False }
func (v opaque) ConvertToType(t ref.Type) ref.Val {
	if t == types.TypeType {
		return v.kind
	}
	return types.NoSuchOverloadErr()
}

func (v opaque) ConvertToNative(reflect.Type) (any, error) {
	return nil, fmt.Errorf("%s is not converted", v.kind)
}

func noField(id int64, kind *types.Type) error {
	return fail(WrongType, id, "%s has no such field", kind)
}

// An Event is the event as expressions see it. It is safe for concurrent use: one serves all filters of an event.
type Event struct {
	opaque
	id, kind, timestamp ref.Val
	data, previous      Document
}

// NewEvent returns an event. data is a JSON object, previous one or nil; neither may change while the event is in use.
func NewEvent(id, eventType string, timestamp time.Time, data, previous []byte) *Event {
	return &Event{
		opaque: opaque{eventRecord}, id: types.String(id), kind: types.String(eventType),
		timestamp: types.Timestamp{Time: timestamp},
		data:      Document{text: data}, previous: Document{text: previous},
	}
}

func (e *Event) field(id int64, key ref.Val) (ref.Val, error) {
	name, _ := key.(types.String)
	switch name {
	case "id":
		return e.id, nil
	case "type":
		return e.kind, nil
	case "timestamp":
		return e.timestamp, nil
	case "data":
		return e.data.read()
	case "previous":
		if len(e.previous.text) == 0 {
			return nil, nil
		}
		return e.previous.read()
	}
	return nil, noField(id, eventRecord)
}

// A Subscription is the subscription as expressions see it. It is immutable.
type Subscription struct {
	opaque
	name, namespace, labels ref.Val
}

// NewSubscription returns a subscription; it copies the labels.
func NewSubscription(name, namespace string, labels map[string]string) *Subscription {
	return &Subscription{
		opaque: opaque{subscriptionType}, name: types.String(name), namespace: types.String(namespace),
		labels: textMapping(labels),
	}
}

func (s *Subscription) field(id int64, key ref.Val) (ref.Val, error) {
	name, _ := key.(types.String)
	switch name {
	case "name":
		return s.name, nil
	case "namespace":
		return s.namespace, nil
	case "labels":
		return s.labels, nil
	}
	return nil, noField(id, subscriptionType)
}

// A Delivery is the delivery as a transform sees it.
type Delivery struct {
	opaque
	id, attempt, planned ref.Val
}

// NewDelivery returns a delivery. Attempts count from 1; planned is zero if the subscription has no schedule, and reads
// as null then.
func NewDelivery(id string, attempt int, planned time.Time) *Delivery {
	d := &Delivery{opaque: opaque{deliveryType}, id: types.String(id), attempt: types.Int(attempt)}
	if !planned.IsZero() {
		d.planned = types.Timestamp{Time: planned}
	}
	return d
}

func (d *Delivery) field(id int64, key ref.Val) (ref.Val, error) {
	name, _ := key.(types.String)
	switch name {
	case "id":
		return d.id, nil
	case "attempt":
		return d.attempt, nil
	case "planned":
		return d.planned, nil
	}
	return nil, noField(id, deliveryType)
}

// A Response is an endpoint's answer as an outcome sees it.
type Response struct {
	opaque
	status, headers ref.Val
	body            Document
}

// NewResponse returns an answer. The names of its headers are in lower case; of a header that stands twice, the values
// are joined by ", " (RFC 9110, section 5.2). The body reads as null if it is no JSON.
func NewResponse(status int, headers http.Header, body []byte) *Response {
	flat := make(map[string]string, len(headers))
	for name, values := range headers {
		flat[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	return &Response{
		opaque: opaque{responseType}, status: types.Int(status), headers: textMapping(flat), body: Document{text: body},
	}
}

func (r *Response) field(id int64, key ref.Val) (ref.Val, error) {
	name, _ := key.(types.String)
	switch name {
	case "status":
		return r.status, nil
	case "headers":
		return r.headers, nil
	case "body":
		if body, err := r.body.read(); err == nil {
			return body, nil
		}
		return types.NullValue, nil
	}
	return nil, noField(id, responseType)
}

// textMapping returns a map of texts, ordered by key.
func textMapping(from map[string]string) *mapping {
	m := &mapping{}
	for _, key := range sortedKeys(from) {
		m.put(key, types.String(from[key]))
		m.weight += int64(2 + (len(key)+len(from[key]))/bytesPerUnit)
	}
	return m
}

// The types of the variables, with the fields that the compiler knows.
var (
	eventRecord      = types.NewObjectType("Event", traits.FieldTesterType|traits.IndexerType)
	subscriptionType = types.NewObjectType("Subscription", traits.FieldTesterType|traits.IndexerType)
	deliveryType     = types.NewObjectType("Delivery", traits.FieldTesterType|traits.IndexerType)
	responseType     = types.NewObjectType("Response", traits.FieldTesterType|traits.IndexerType)
	jsonObject       = types.NewMapType(types.StringType, types.DynType)
)

var recordFields = map[string]map[string]*types.Type{
	"Event": {"id": types.StringType, "type": types.StringType, "timestamp": types.TimestampType,
		"data": jsonObject, "previous": types.DynType},
	"Subscription": {"name": types.StringType, "namespace": types.StringType, "labels": jsonObject},
	"Delivery":     {"id": types.StringType, "attempt": types.IntType, "planned": types.DynType},
	"Response":     {"status": types.IntType, "headers": jsonObject, "body": types.DynType},
}

// provider tells the compiler the fields of the records. An expression cannot make one.
type provider struct {
	*types.Registry
}

func (p provider) FindStructType(name string) (*types.Type, bool) {
	if _, ok := recordFields[name]; ok {
		return types.NewTypeTypeWithParam(types.NewObjectType(name)), true
	}
	return p.Registry.FindStructType(name)
}

func (p provider) FindStructFieldNames(name string) ([]string, bool) {
	if fields, ok := recordFields[name]; ok {
		return sortedKeys(fields), true
	}
	return p.Registry.FindStructFieldNames(name)
}

func (p provider) FindStructFieldType(name, field string) (*types.FieldType, bool) {
	if fields, ok := recordFields[name]; ok {
		kind, ok := fields[field]
		return &types.FieldType{Type: kind}, ok
	}
	return p.Registry.FindStructFieldType(name, field)
}
