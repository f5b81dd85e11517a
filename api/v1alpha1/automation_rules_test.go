package v1alpha1_test

import (
	"fmt"
	"maps"
	"strings"
)

// automationRules are those of spec.schedule, lookup, transform, auth and outcome, and of spec.payload beside its mode.
var automationRules = func() map[string]rule {
	rules := map[string]rule{
		"schedule": scheduleRule,
		"window":   windowRule,
		"cancelOn": cancelOnRule,
		"lookup": textRule("spec.lookup.url", "spec: {lookup: {url: %s}}", 4096, map[string]string{
			"spec: {lookup: {}}": "spec.lookup.url: Required value",
		}),
		"transform":         transformRule,
		"transform.headers": transformHeadersRule,
		"auth":              authRule,
		"basic": secretNameRule("spec.auth.basic.secretRef", "spec: {auth: {basic: {secretRef: %s}}}", map[string]string{
			"spec: {auth: {basic: {}}}": "spec.auth.basic.secretRef: Required value",
		}),
		"bearer": secretKeyRules("spec.auth.bearer.secretKeyRef", "spec: {auth: {bearer: {secretKeyRef: %s}}}", map[string]string{
			"spec: {auth: {bearer: {}}}": "spec.auth.bearer.secretKeyRef: Required value",
		}),
		"apiKey": secretKeyRules("spec.auth.apiKey.secretKeyRef", "spec: {auth: {apiKey: {header: x-key, secretKeyRef: %s}}}", map[string]string{
			"spec: {auth: {apiKey: {header: x-key}}}": "spec.auth.apiKey.secretKeyRef: Required value",
		}),
		"apiKey.header": apiKeyHeaderRule,
		"oauth2":        oauth2Rule,
		"oauth2's Secret": secretNameRule("spec.auth.oauth2ClientCredentials.secretRef", "spec: {auth: {oauth2ClientCredentials: {tokenURL: 'https://a.example', secretRef: %s}}}", map[string]string{
			"spec: {auth: {oauth2ClientCredentials: {tokenURL: 'https://a.example'}}}": "spec.auth.oauth2ClientCredentials.secretRef: Required value",
		}),
		"handshake": handshakeRule,
		"outcome": {
			good: []string{"spec: {outcome: {success: response.status == 200, giveUp: response.status == 400}}", "spec: {outcome: {giveUp: x}}"},
			bad:  map[string]string{"spec: {outcome: {}}": "spec.outcome … at least one of the fields in [success giveUp] must be set"},
		},
		"outcome.success":           textRule("spec.outcome.success", "spec: {outcome: {success: %s}}", 4096, nil),
		"outcome.giveUp":            textRule("spec.outcome.giveUp", "spec: {outcome: {giveUp: %s}}", 4096, nil),
		"payload.redact and format": payloadRule,
	}
	for field, patch := range map[string]string{
		"spec.schedule.at":                 "spec: {schedule: {at: %s}}",
		"spec.schedule.key":                "spec: {schedule: {at: x, key: %s}}",
		"spec.schedule.recheck":            "spec: {schedule: {at: x, recheck: %s}}",
		"spec.schedule.window.timeZone":    "spec: {schedule: {at: x, window: {from: '09:00', until: '20:00', timeZone: %s}}}",
		"spec.schedule.cancelOn[0].filter": "spec: {schedule: {at: x, cancelOn: [{events: ['*'], filter: %s}]}}",
		"spec.schedule.cancelOn[0].key":    "spec: {schedule: {at: x, cancelOn: [{events: ['*'], key: %s}]}}",
		"spec.transform.urlSuffix":         "spec: {transform: {urlSuffix: %s}}",
		"spec.transform.headers[0].value":  "spec: {transform: {headers: [{name: x-a, value: %s}]}}",
	} {
		rules[field] = textRule(field, patch, 4096, nil)
	}
	for _, name := range []string{"auth", "basic", "bearer", "apiKey", "apiKey.header", "oauth2", "oauth2's Secret"} {
		rules["lookup: "+name] = ofLookup(rules[name])
	}
	rules["spec.transform.body"] = textRule("spec.transform.body", "spec: {transform: {body: %s}}", 16384, nil)
	return rules
}()

func init() { maps.Copy(subscriptionRules, automationRules) }

// textRule is that of an expression of at most so many bytes at path; patch sets it.
func textRule(path, patch string, most int, bad map[string]string) rule {
	set := func(value string) string { return fmt.Sprintf(patch, value) }
	r := rule{
		good: []string{set("x"), set(strings.Repeat("x", most))},
		bad: map[string]string{
			set("''"):                        path + " … should be at least 1 chars long",
			set(strings.Repeat("x", most+1)): fmt.Sprintf("%s … may not be more than %d bytes", path, most),
		},
	}
	maps.Copy(r.bad, bad)
	return r
}

// secretNameRule is that of a SecretReference at path; patch sets it.
func secretNameRule(path, patch string, bad map[string]string) rule {
	set := func(name string) string { return fmt.Sprintf(patch, "{name: "+name+"}") }
	r := rule{
		good: []string{set("twilio"), set("twilio.v2"), set(strings.Repeat("x", 253))},
		bad: map[string]string{
			set("null"):                   path + ".name: Required value",
			set("''"):                     path + ".name … should be at least 1 chars long",
			set("Twilio_Key"):             path + ".name … must be the name of a Secret: lower-case letters, digits, dashes and dots",
			set(strings.Repeat("x", 254)): path + ".name … may not be more than 253 bytes",
		},
	}
	maps.Copy(r.bad, bad)
	return r
}

var scheduleRule = rule{
	good: []string{
		"spec: {schedule: {at: event.timestamp}}",
		"spec: {schedule: {at: event.timestamp, ifPast: Deliver}, delivery: {ordering: None}}",
	},
	bad: map[string]string{
		"spec: {schedule: {}}":                                        "spec.schedule.at: Required value",
		"spec: {schedule: {at: x, ifPast: Later}}":                    "spec.schedule.ifPast: Unsupported value",
		"spec: {schedule: {at: x}, delivery: {ordering: ByResource}}": "spec: Invalid value … schedule and delivery.ordering ByResource exclude each other: a schedule decides when each delivery goes",
	},
}

var windowRule = func() rule {
	set := func(change string) string {
		fields := map[string]string{"timeZone": "UTC", "from": "'09:00'", "until": "'20:00'"}
		name, value, _ := strings.Cut(change, ": ")
		fields[name] = value
		var all []string
		for name, value := range fields {
			if name != "" && value != "" {
				all = append(all, name+": "+value)
			}
		}
		return "spec: {schedule: {at: x, window: {" + strings.Join(all, ", ") + "}}}"
	}
	const path = "spec.schedule.window"
	return rule{
		good: []string{
			set(""), set("until: '24:00'"), set("until: '08:59'"), set("from: '00:00'"), set("from: '23:59'"), set("outside: Earlier"), set("outside: Skip"),
			set("days: [Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday]"),
		},
		bad: map[string]string{
			set("timeZone: "):              path + ".timeZone: Required value",
			set("from: "):                  path + ".from: Required value",
			set("until: "):                 path + ".until: Required value",
			set("from: '9:00'"):            path + ".from … should be at least 5 chars long",
			set("from: '09:00h'"):          path + ".from … may not be more than 5 bytes",
			set("from: '24:00'"):           path + ".from … must be a time of day from 00:00 to 23:59",
			set("until: '9:00'"):           path + ".until … should be at least 5 chars long",
			set("until: '09:00h'"):         path + ".until … may not be more than 5 bytes",
			set("until: '24:01'"):          path + ".until … must be a time of day from 00:00 to 24:00",
			set("until: '09:00'"):          path + ": Invalid value … a window that ends when it begins is empty; for a whole day, write 00:00 until 24:00",
			set("outside: Never"):          path + ".outside: Unsupported value",
			set("days: []"):                path + ".days … should have at least 1 items",
			set("days: [Funday]"):          path + ".days[0]: Unsupported value",
			set("days: [Monday, Monday]"):  path + ".days[1]: Duplicate value",
			set("days: " + list(8, "D%d")): path + ".days … must have at most 7 items",
		},
	}
}()

var cancelOnRule = func() rule {
	set := func(rules string) string { return "spec: {schedule: {at: x, cancelOn: " + rules + "}}" }
	const path = "spec.schedule.cancelOn"
	return rule{
		good: []string{set("[{events: [appointment.deleted, 'lab.*']}, {events: ['*']}]"), set("[{events: " + list(32, "r%d.created") + "}]")},
		bad: map[string]string{
			set("[]"): path + " … should have at least 1 items",
			set(list(9, "{events: ['r%d.created']}")): path + " … must have at most 8 items",
			set("[{}]"):           path + "[0].events: Required value",
			set("[{events: []}]"): path + "[0].events … should have at least 1 items",
			set("[{events: " + list(33, "r%d.created") + "}]"):           path + "[0].events … must have at most 32 items",
			set("[{events: ['*', '*']}]"):                                path + "[0].events[1]: Duplicate value",
			set("[{events: ['']}]"):                                      path + "[0].events[0] … should be at least 1 chars long",
			set("[{events: [" + strings.Repeat("x", 65) + ".created]}]"): path + "[0].events[0] … may not be more than 72 bytes",
			set("[{events: [appointment]}]"):                             path + "[0].events[0] … must be *, {resource}.*, {resource}.{created|updated|deleted}, or eventflow.* and its types",
		},
	}
}()

var transformRule = rule{
	good: []string{
		"spec: {transform: {}}",
		"spec: {transform: {contentType: application/x-www-form-urlencoded, body: '{}', method: PATCH}}",
		"spec: {transform: {contentType: application/fhir+json, body: '{}', method: PUT}}",
		"spec: {transform: {contentType: text/plain, body: '{}'}}",
		"spec: {transform: {contentType: application/json}}",
	},
	bad: map[string]string{
		"spec: {transform: {contentType: text/html, body: '{}'}}": "spec.transform.contentType: Unsupported value",
		"spec: {transform: {contentType: text/plain}}":            "spec.transform: Invalid value … a contentType other than application/json needs a body",
		"spec: {transform: {method: GET}}":                        "spec.transform.method: Unsupported value",
	},
}

var transformHeadersRule = func() rule {
	set := func(headers string) string { return "spec: {transform: {headers: " + headers + "}}" }
	name := func(name string) string { return set("[{name: '" + name + "', value: x}]") }
	const path, reserved = "spec.transform.headers", "must not be a header that Event Flow, spec.auth or HTTP itself sets"
	return rule{
		good: []string{name("X-Team"), name("Idempotency-Key"), set(list(16, "{name: x-%d, value: x}"))},
		bad: map[string]string{
			set("[]"):                               path + " … should have at least 1 items",
			set(list(17, "{name: x-%d, value: x}")): path + " … must have at most 16 items",
			set("[{name: x-a, value: x}, {name: x-a, value: y}]"): path + "[1]: Duplicate value",
			set("[{value: x}]"):            path + "[0].name: Required value",
			set("[{name: x-a}]"):           path + "[0].value: Required value",
			name(""):                       path + "[0].name … should be at least 1 chars long",
			name(strings.Repeat("x", 129)): path + "[0].name … may not be more than 128 bytes",
			name("X Team"):                 path + "[0].name … must be an HTTP header name, such as X-Team",
			name("Authorization"):          path + "[0].name … " + reserved,
			name("Webhook_Id"):             path + "[0].name … " + reserved,
			name("Content-Type"):           path + "[0].name … " + reserved,
		},
	}
}()

// ofLookup makes of a rule of spec.auth that of spec.lookup.auth, but for what concerns spec.headers.
func ofLookup(of rule) rule {
	const from, to = "spec: {auth: ", `spec: {lookup: {url: "'https://a.example/'", auth: `
	moved := rule{bad: map[string]string{}}
	for _, patch := range of.good {
		if strings.HasPrefix(patch, from) && !strings.Contains(patch, ", headers:") {
			moved.good = append(moved.good, to+strings.TrimPrefix(patch, from)+"}")
		}
	}
	for patch, want := range of.bad {
		if strings.HasPrefix(patch, from) && !strings.Contains(patch, ", headers:") {
			moved.bad[to+strings.TrimPrefix(patch, from)+"}"] = strings.ReplaceAll(want, "spec.auth", "spec.lookup.auth")
		}
	}
	return moved
}

var authRule = rule{
	good: []string{
		"spec: {auth: {basic: {secretRef: {name: twilio}}}}",
		"spec: {auth: {apiKey: {header: x-key, secretKeyRef: {name: a, key: b}}}, headers: [{name: authorization, value: x}]}",
		"spec: {auth: {bearer: {secretKeyRef: {name: a, key: b}}}, headers: [{name: x-a, value: x}]}",
	},
	bad: map[string]string{
		"spec: {auth: {}}": "spec.auth … exactly one of the fields in [basic bearer apiKey oauth2ClientCredentials] must be set",
		"spec: {auth: {basic: {secretRef: {name: a}}, bearer: {secretKeyRef: {name: a, key: b}}}}":              "spec.auth … exactly one of the fields in [basic bearer apiKey oauth2ClientCredentials] must be set",
		"spec: {auth: {bearer: {secretKeyRef: {name: a, key: b}}}, headers: [{name: Authorization, value: x}]}": "spec: Invalid value … auth and a header Authorization exclude each other",
	},
}

var apiKeyHeaderRule = func() rule {
	set := func(name string) string {
		return "spec: {auth: {apiKey: {header: " + name + ", secretKeyRef: {name: a, key: b}}}}"
	}
	const path, reserved = "spec.auth.apiKey.header", "must not be a header that Event Flow or HTTP itself sets"
	return rule{
		good: []string{set("X-Api-Key"), set("Authorization"), set(strings.Repeat("x", 128))},
		bad: map[string]string{
			set("null"):                   path + ": Required value",
			set("''"):                     path + " … should be at least 1 chars long",
			set(strings.Repeat("x", 129)): path + " … may not be more than 128 bytes",
			set("X Key"):                  path + " … must be an HTTP header name, such as X-Api-Key",
			set("Host"):                   path + " … " + reserved,
			set("x_clinik_event"):         path + " … " + reserved,
		},
	}
}()

var oauth2Rule = func() rule {
	set := func(more string) string {
		return "spec: {auth: {oauth2ClientCredentials: {secretRef: {name: a}" + more + "}}}"
	}
	with := func(more string) string { return set(", tokenURL: 'https://id.example.com/token', " + more) }
	const path = "spec.auth.oauth2ClientCredentials"
	return rule{
		good: []string{
			with("scopes: [a, 'b:c/d'], audience: x, credentialsIn: Body"), with("scopes: " + list(32, "s%d")),
			with("audience: " + strings.Repeat("x", 512)), with("scopes: [" + strings.Repeat("x", 256) + "]"),
		},
		bad: map[string]string{
			set(""): path + ".tokenURL: Required value",
			set(", tokenURL: 'http://a'"[:len(", tokenURL: 'http://")] + "'"): path + ".tokenURL … should be at least 9 chars long",
			set(", tokenURL: 'https://a/" + strings.Repeat("x", 2048) + "'"):  path + ".tokenURL … may not be more than 2048 bytes",
			set(", tokenURL: 'ftp://id.example.com'"):                         path + ".tokenURL … must be an absolute https URL, such as https://example.com/oauth2/token",
			with("scopes: []"):                                 path + ".scopes … should have at least 1 items",
			with("scopes: " + list(33, "s%d")):                 path + ".scopes … must have at most 32 items",
			with("scopes: [a, a]"):                             path + ".scopes[1]: Duplicate value",
			with("scopes: ['']"):                               path + ".scopes[0] … should be at least 1 chars long",
			with("scopes: [" + strings.Repeat("x", 257) + "]"): path + ".scopes[0] … may not be more than 256 bytes",
			with("scopes: ['a b']"):                            path + ".scopes[0] … must be a scope: printable characters without space, quote and backslash",
			with(`scopes: ['a"b']`):                            path + ".scopes[0] … must be a scope",
			with(`scopes: ['a\b']`):                            path + ".scopes[0] … must be a scope",
			with("audience: ''"):                               path + ".audience … should be at least 1 chars long",
			with("audience: " + strings.Repeat("x", 513)):      path + ".audience … may not be more than 512 bytes",
			with("credentialsIn: Query"):                       path + ".credentialsIn: Unsupported value",
		},
	}
}()

var handshakeRule = func() rule {
	origin := func(name string) string { return "spec: {handshake: {origin: '" + name + "'}}" }
	const path, wrong = "spec.handshake.origin", "must be a DNS name in lower case, such as eventflow.clinic.example"
	label := strings.Repeat("x", 63) + "."
	return rule{
		good: []string{origin("eventflow.clinic.example"), origin("localhost"), origin("a-b.1.example"), origin(strings.Repeat(label, 3) + strings.Repeat("x", 61))},
		bad: map[string]string{
			"spec: {handshake: {}}": path + ": Required value",
			origin(""):              path + " … should be at least 1 chars long",
			origin(strings.Repeat(label, 3) + strings.Repeat("x", 62)): path + " … may not be more than 253 bytes",
			origin("Clinic.example"):                                   path + " … " + wrong,
			origin("clinic.example."):                                  path + " … " + wrong,
			origin("-clinic.example"):                                  path + " … " + wrong,
			origin("clinic..example"):                                  path + " … " + wrong,
			origin("https://clinic.example"):                           path + " … " + wrong,
			origin("*"):                                                path + " … " + wrong,
		},
	}
}()

var payloadRule = func() rule {
	redact := func(path string) string { return "spec: {payload: {redact: ['" + path + "']}}" }
	const path, wrong = "spec.payload.redact", "must be keys joined by dots, with [*] for each element of a list, such as contacts[*].phone"
	return rule{
		good: []string{
			redact("patient"), redact("patient.name"), redact("contacts[*].phone"), redact("a[*][*].b c.ü-1[*]"), redact(strings.Repeat("x", 256)),
			"spec: {payload: {redact: " + list(64, "k%d") + "}}", "spec: {payload: {format: CloudEvents}}", "spec: {payload: {format: CloudEventsBinary}}",
		},
		bad: map[string]string{
			redact(""):                          path + "[0] … should be at least 1 chars long",
			redact(strings.Repeat("x", 257)):    path + "[0] … may not be more than 256 bytes",
			redact("a..b"):                      path + "[0] … " + wrong,
			redact(".a"):                        path + "[0] … " + wrong,
			redact("a[0]"):                      path + "[0] … " + wrong,
			redact("[*].a"):                     path + "[0] … " + wrong,
			redact("a[*]b"):                     path + "[0] … " + wrong,
			"spec: {payload: {redact: []}}":     path + " … should have at least 1 items",
			"spec: {payload: {redact: [a, a]}}": path + "[1]: Duplicate value",
			"spec: {payload: {redact: " + list(65, "k%d") + "}}": path + " … must have at most 64 items",
			"spec: {payload: {format: Avro}}":                    "spec.payload.format: Unsupported value",
		},
	}
}()
