package payload

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/expression"
)

// attempt carries one attempt through the steps of its recipe. It keeps nothing of the event.
type attempt struct {
	sender   *Sender
	recipe   *Recipe
	target   *egress.Target
	delivery event.DeliveryID
	number   int
	planned  time.Time
	begun    time.Time
	memory   account // until the request is written
	kept     account // until the answer was judged
}

// make returns the request. Its error is a *refusal, or that of ctx.
func (a *attempt) make(ctx context.Context, ev *delivery.Event) (egress.Request, error) {
	spec := &a.recipe.spec
	request := egress.Request{Target: a.target, Delivery: a.delivery, Type: ev.Type, Number: a.number, Begun: a.begun}
	if spec.Success.set() || spec.GiveUp.set() {
		request.Answer = &egress.Answer{WantBody: a.recipe.wantBody}
		if a.recipe.wantBody {
			if err := a.kept.hold(ctx, egress.MaxAnswer); err != nil {
				return request, err
			}
		}
	}
	// What redaction and each envelope copy of the event at most.
	if err := a.memory.hold(ctx, 3*int64(len(ev.Body))); err != nil {
		return request, err
	}
	e, err := open(ev.Body)
	if err != nil {
		return request, a.refuse(UseTransform, delivery.ReasonTransformFailed, &expression.Error{Reason: expression.MalformedData, Message: err.Error()})
	}
	lookup, err := a.before(ctx, ev, &e)
	if err != nil {
		return request, err
	}
	data, err := a.recipe.redact.redacted(e.data)
	if err != nil {
		return request, a.refuse(UseRedact, delivery.ReasonTransformFailed, &expression.Error{Reason: expression.MalformedData, Message: err.Error()})
	}
	shape := &egress.Shape{Method: spec.Method}
	if !spec.Body.set() {
		if request.Body, err = a.untransformed(ev, &e, data, shape); err != nil {
			return request, a.refuse(UseTransform, delivery.ReasonTransformFailed, &expression.Error{Reason: expression.MalformedData, Message: err.Error()})
		}
	}
	if spec.Body.set() || spec.URLSuffix.set() || len(spec.Headers) > 0 {
		err = a.evaluate(ctx, parsed(len(data))+parsed(len(lookup)), func() error {
			return a.transform(ctx, &expression.Variables{
				Event:        expression.NewEvent(ev.ID, string(ev.Type), e.timestamp, data, nil),
				Subscription: spec.Subscription, Lookup: expression.NewDocument(lookup),
				Delivery: expression.NewDelivery(a.delivery.String(), a.number, a.planned),
			}, shape, &request)
		})
		if err != nil {
			return request, err
		}
	}
	if err := shape.Check(a.target); err != nil {
		return request, a.refuse(UseTransform, delivery.ReasonTransformFailed, &expression.Error{Reason: expression.InvalidValue, Message: err.Error()})
	}
	if shape.Method != "" || shape.Suffix != "" || shape.ContentType != "" || len(shape.Header)+len(shape.Attributes) > 0 {
		request.Shape = shape
	}
	return request, nil
}

// before asks recheck, and looks up what the transform needs.
func (a *attempt) before(ctx context.Context, ev *delivery.Event, e *envelope) (lookup []byte, err error) {
	spec := &a.recipe.spec
	if !spec.Recheck.set() && !spec.LookupURL.set() {
		return nil, nil
	}
	var url string
	err = a.evaluate(ctx, parsed(len(e.data)), func() error {
		variables := expression.Variables{
			Event:        expression.NewEvent(ev.ID, string(ev.Type), e.timestamp, e.data, nil),
			Subscription: spec.Subscription, Now: a.sender.options.Now(),
		}
		if spec.Recheck.set() {
			wanted, err := truth(spec.Recheck, &variables)
			if err != nil {
				a.note(UseRecheck, err)
				wanted = !spec.SkipErrors
			}
			if !wanted {
				return &refusal{reason: delivery.ReasonRecheck, message: "recheck is false"}
			}
		}
		if spec.LookupURL.set() {
			if url, err = text(spec.LookupURL, &variables); err != nil {
				return a.refuse(UseLookup, delivery.ReasonLookupFailed, err)
			}
		}
		return nil
	})
	if err != nil || !spec.LookupURL.set() {
		return nil, err
	}
	return a.lookUp(ctx, url)
}

// lookUp reads the document that the transform needs. It is charged until the request is written.
func (a *attempt) lookUp(ctx context.Context, url string) ([]byte, error) {
	if err := a.memory.hold(ctx, egress.MaxDocument); err != nil {
		return nil, err
	}
	origin, target := originOf(url), a.target
	authorized := origin != "" && (origin == a.recipe.origin || origin == originOf(target.URL))
	if own := a.recipe.spec.Lookup; own != nil { // its credentials are not the endpoint's
		target, authorized = own, origin != "" && origin == a.recipe.origin
	}
	document, result := a.sender.options.Client.Fetch(ctx, egress.Document{
		URL: url, Target: target, Tenant: a.memory.tenant, Begun: a.begun, Authorized: authorized,
	})
	message := ""
	switch {
	case result.Reason == delivery.ReasonInterrupted:
		return nil, ctx.Err()
	case result.Reason == delivery.ReasonStatusCode:
		message = fmt.Sprintf("the lookup was answered with the status %d", result.StatusCode)
	case result.Reason != "":
		message = fmt.Sprintf("the lookup failed: %s", result.Reason)
	case !jsontext.Value(document).IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)):
		message = "the lookup's answer is no JSON"
	}
	if message != "" {
		a.sender.options.Failed(a.delivery.Subscription, Failure{UseLookup, string(delivery.ReasonLookupFailed), message})
		return nil, &refusal{reason: delivery.ReasonLookupFailed, message: message}
	}
	return document, nil
}

// untransformed is the body as spec.payload says.
func (a *attempt) untransformed(ev *delivery.Event, e *envelope, data []byte, shape *egress.Shape) (body []byte, err error) {
	spec := &a.recipe.spec
	if spec.Format == Standard {
		if a.recipe.redact == nil && !spec.Thin {
			return ev.Body, nil
		}
		return e.standard(data, spec.Thin)
	}
	attributes := e.attributes(ev, spec.Namespace, data)
	if spec.Thin {
		if data, err = e.thin(data); err != nil {
			return nil, err
		}
	}
	if spec.Format == CloudEvents {
		shape.ContentType = "application/cloudevents+json"
		return structured(attributes, data), nil
	}
	shape.Attributes = binary(attributes)
	return data, nil
}

// transform evaluates the expressions of the transform.
func (a *attempt) transform(ctx context.Context, variables *expression.Variables, shape *egress.Shape, request *egress.Request) error {
	spec := &a.recipe.spec
	refuse := func(err error) error { return a.refuse(UseTransform, delivery.ReasonTransformFailed, err) }
	if spec.Body.set() {
		body, err := bodyOf(spec.Body, spec.ContentType, variables)
		if err != nil {
			return refuse(err)
		}
		if err := a.memory.hold(ctx, int64(len(body))); err != nil {
			return err
		}
		request.Body, shape.ContentType = body, spec.ContentType
	}
	var err error
	if spec.URLSuffix.set() {
		if shape.Suffix, err = text(spec.URLSuffix, variables); err != nil {
			return refuse(err)
		}
	}
	for _, h := range spec.Headers {
		value, err := text(h.Value, variables)
		if err != nil {
			return refuse(err)
		}
		shape.Header = append(shape.Header, egress.Field{Name: h.Name, Value: value})
	}
	return nil
}

// bodyOf evaluates a body and writes it as its content type says. A text is the body as it is.
func bodyOf(e Expression, contentType string, variables *expression.Variables) ([]byte, error) {
	if e.Program == nil {
		return nil, errUnknown
	}
	value, err := e.Program.Value(variables)
	switch {
	case err != nil:
		return nil, err
	case value.IsText() || contentType == "text/plain":
		body, err := value.Text()
		return []byte(body), err
	case contentType == "application/x-www-form-urlencoded":
		return value.Form()
	}
	return value.JSON()
}

// judge reads from the answer what became of the delivery.
func (a *attempt) judge(ctx context.Context, answer *egress.Answer, result *egress.Result) {
	if answer == nil || result.StatusCode == 0 || result.Reason != "" && result.Reason != delivery.ReasonStatusCode {
		return
	}
	spec := &a.recipe.spec
	err := a.evaluate(ctx, parsed(len(answer.Body)), func() error {
		variables := &expression.Variables{Response: expression.NewResponse(result.StatusCode, answer.Header, answer.Body)}
		if spec.Success.set() {
			success, err := truth(spec.Success, variables)
			switch {
			case err != nil:
				a.note(UseOutcome, err)
			case success:
				result.Reason, result.RetryAfter = "", 0
			case result.Delivered():
				result.Reason = delivery.ReasonNotSuccess
			}
		}
		if spec.GiveUp.set() && !result.Delivered() {
			giveUp, err := truth(spec.GiveUp, variables)
			if err != nil {
				a.note(UseOutcome, err)
			}
			result.GiveUp = giveUp && err == nil
		}
		return nil
	})
	if err != nil { // of ctx alone: the attempt is repeated
		result.Reason = delivery.ReasonInterrupted
	}
}

// evaluate runs f in a place, with the memory that evaluations hold charged beside the given bytes.
func (a *attempt) evaluate(ctx context.Context, bytes int64, f func() error) error {
	tenant := a.memory.tenant
	if err := a.sender.turns.Acquire(ctx, tenant, 1); err != nil {
		return err
	}
	defer a.sender.turns.Release(tenant, 1)
	account := account{budget: a.memory.budget, tenant: tenant}
	if err := account.holdOver(ctx, bytes+evaluationBytes); err != nil {
		return err
	}
	defer account.dropAll()
	return f()
}

// errUnknown stands for an expression that a manager of another version accepted.
var errUnknown = &expression.Error{Reason: expression.Internal, Message: "this version cannot compile the expression"}

func truth(e Expression, variables *expression.Variables) (bool, error) {
	if e.Program == nil {
		return false, errUnknown
	}
	return e.Program.Bool(variables)
}

func text(e Expression, variables *expression.Variables) (string, error) {
	if e.Program == nil {
		return "", errUnknown
	}
	return e.Program.Text(variables)
}

// refuse ends the attempt for an error of the given use.
func (a *attempt) refuse(use string, reason delivery.Reason, err error) error {
	return &refusal{reason: reason, message: a.note(use, err)}
}

// note counts an error, and reports it.
func (a *attempt) note(use string, err error) string {
	failure := Failure{Use: use, Reason: string(expression.Internal), Message: "the evaluation failed"}
	var known *expression.Error
	if errors.As(err, &known) {
		failure.Reason, failure.Message = string(known.Reason), known.Error()
	}
	a.sender.errors.WithLabelValues(use, failure.Reason).Inc()
	a.sender.options.Failed(a.delivery.Subscription, failure)
	return failure.Message
}
