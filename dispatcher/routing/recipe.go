package routing

import (
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/expression"
	"github.com/clinikapi/eventflow/dispatcher/payload"
)

// recipe returns how the entry's requests are made; nil if events go as they are stored. lookup has the authorization of the
// lookup, where that has its own.
func (e *Entry) recipe(lookup *egress.Target) (*payload.Recipe, error) {
	spec := payload.Spec{
		Subscription: expression.NewSubscription(e.Name, e.Namespace, e.Labels),
		Namespace:    e.Namespace,
		SkipErrors:   e.SkipFilterErrors,
		LookupURL:    expressionOf(expression.LookupURL, e.Lookup),
		Lookup:       lookup,
		Thin:         e.Thin,
		Redact:       e.Redact,
		Format:       formats[e.Format],
	}
	if e.Schedule != nil {
		spec.Recheck = expressionOf(expression.Recheck, e.Schedule.Recheck)
	}
	if t := e.Transform; t != nil {
		spec.Body, spec.ContentType, spec.Method = expressionOf(expression.TransformBody, t.Body), t.ContentType, t.Method
		spec.URLSuffix = expressionOf(expression.TransformText, t.URLSuffix)
		for _, header := range t.Headers {
			spec.Headers = append(spec.Headers, payload.Header{Name: header.Name, Value: expressionOf(expression.TransformText, header.Value)})
		}
	}
	if o := e.Outcome; o != nil {
		spec.Success = expressionOf(expression.Outcome, o.Success)
		spec.GiveUp = expressionOf(expression.Outcome, o.GiveUp)
	}
	return payload.NewRecipe(spec)
}

// formats are the envelopes by the names of the schema.
var formats = map[string]payload.Format{
	string(v1alpha1.FormatCloudEvents):       payload.CloudEvents,
	string(v1alpha1.FormatCloudEventsBinary): payload.CloudEventsBinary,
}

// expressionOf compiles a text that an attempt evaluates. One that a newer manager accepted, and this version cannot compile,
// fails each time: its deliveries wait for an update.
func expressionOf(use expression.Use, text string) payload.Expression {
	if text == "" {
		return payload.Expression{}
	}
	program, err := programOf(use, text)
	if err != nil {
		program = nil
	}
	return payload.Expression{Text: text, Program: program}
}

// authorization is how the requests of an entry authenticate; nil if they do not.
func (a *Auth) authorization() *egress.Authorization {
	switch {
	case a == nil:
		return nil
	case a.OAuth2 != nil:
		return &egress.Authorization{ClientCredentials: &egress.ClientCredentials{
			TokenURL: a.OAuth2.TokenURL, ClientID: a.OAuth2.ClientID, ClientSecret: a.OAuth2.ClientSecret,
			Scopes: a.OAuth2.Scopes, Audience: a.OAuth2.Audience, InBody: a.OAuth2.InBody,
		}}
	default:
		return &egress.Authorization{APIKey: &egress.APIKey{Header: a.Header, Key: a.Value}}
	}
}
