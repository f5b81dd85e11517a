package v1alpha1_test

import (
	"fmt"
	"strings"
)

var subscriptionRules = map[string]rule{
	"spec is required": {
		good: []string{"spec: {}"},
		bad:  map[string]string{"spec: null": "spec: Required value"},
	},
	"url is absolute": {
		good: []string{
			"spec: {url: https://example.com}",
			"spec: {url: http://a}",
			"spec: {url: 'https://example.com:8443/hooks?tenant=a%20b&x=@'}",
			"spec: {url: 'http://[2001:db8::1]:8080/hooks'}",
			"spec: {url: HTTPS://EXAMPLE.COM/hooks}",
			fmt.Sprintf("spec: {url: 'https://example.com/%s'}", strings.Repeat("x", 2048-len("https://example.com/"))),
		},
		bad: map[string]string{
			"spec: {url: /hooks/of/mine}":        "spec.url … must be an absolute http or https URL, such as https://example.com/hooks",
			"spec: {url: example.com/hooks}":     "spec.url … must be an absolute http or https URL",
			"spec: {url: 'ftp://example.com/'}":  "spec.url … must be an absolute http or https URL",
			"spec: {url: 'https:///hooks'}":      "spec.url … must be an absolute http or https URL",
			"spec: {url: 'https:hooks'}":         "spec.url … must be an absolute http or https URL",
			"spec: {url: 'https://:8443/hooks'}": "spec.url … must be an absolute http or https URL",
			`spec: {url: "https://a\nb.com/"}`:   "spec.url … must be an absolute http or https URL",
			"spec: {url: 'http://'}":             "spec.url … should be at least 8 chars long",
			fmt.Sprintf("spec: {url: 'https://example.com/%s'}", strings.Repeat("x", 2049-len("https://example.com/"))): "spec.url … may not be more than 2048 bytes",
		},
	},
	"url has a port that exists": {
		good: []string{
			"spec: {url: 'https://example.com:1'}", "spec: {url: 'https://example.com:65535'}",
			"spec: {url: 'https://example.com/:65536'}", "spec: {url: 'https://example.com:'}",
		},
		bad: map[string]string{
			"spec: {url: 'https://example.com:0'}":           "spec.url … must have a port from 1 to 65535, or none",
			"spec: {url: 'https://example.com:65536/hooks'}": "spec.url … must have a port from 1 to 65535, or none",
			"spec: {url: 'https://[::1]:100000?x'}":          "spec.url … must have a port from 1 to 65535, or none",
		},
	},
	"url has no fragment": {
		good: []string{"spec: {url: 'https://example.com/%23'}"},
		bad:  map[string]string{"spec: {url: 'https://example.com/hooks#top'}": "spec.url … must not have a fragment"},
	},
	"url has no credentials": {
		good: []string{"spec: {url: 'https://example.com/@me'}"},
		bad: map[string]string{
			"spec: {url: 'https://me:secret@example.com/'}": "spec.url … must not hold a user name or password: put the URL into a Secret and name it in urlFrom",
			"spec: {url: 'https://token@example.com'}":      "spec.url … must not hold a user name or password: put the URL into a Secret and name it in urlFrom",
		},
	},
	"one of url, urlFrom and serviceRef": {
		good: []string{"spec: {url: null, urlFrom: {secretKeyRef: {name: urls, key: billing}}}"},
		bad: map[string]string{
			"spec: {url: null}": "spec: Invalid value … exactly one of url, urlFrom and serviceRef must be set",
			"spec: {serviceRef: {name: receiver, port: 8443}}":                                                                 "spec: Invalid value … exactly one of url, urlFrom and serviceRef must be set",
			"spec: {url: null, serviceRef: {name: receiver, port: 8443}, urlFrom: {secretKeyRef: {name: urls, key: billing}}}": "spec: Invalid value … exactly one of url, urlFrom and serviceRef must be set",
			"spec: {urlFrom: {secretKeyRef: {name: urls, key: billing}}}":                                                      "spec: Invalid value … exactly one of url, urlFrom and serviceRef must be set",
		},
	},
	"a Service": serviceRules(),
	"urlFrom": secretKeyRules("spec.urlFrom.secretKeyRef", "spec: {url: null, urlFrom: {secretKeyRef: %s}}",
		map[string]string{"spec: {url: null, urlFrom: {}}": "spec.urlFrom.secretKeyRef: Required value"}),
	"one certificate authority": {
		good: []string{
			"spec: {tls: {caSecretRef: {name: ca, key: ca.crt}}}", "spec: {tls: {caConfigMapRef: {name: kube-root-ca.crt, key: ca.crt}}}",
		},
		bad: map[string]string{
			"spec: {tls: {}}": "spec.tls: Invalid value … at least one field must be set",
			"spec: {tls: {caSecretRef: {name: ca, key: ca.crt}, caConfigMapRef: {name: ca, key: ca.crt}}}":  "spec.tls: Invalid value … at most one of the fields in [caSecretRef caConfigMapRef] may be set",
			"spec: {tls: {caConfigMapRef: {key: ca.crt}}}":                                                  "spec.tls.caConfigMapRef.name: Required value",
			"spec: {tls: {caConfigMapRef: {name: '', key: ca.crt}}}":                                        "spec.tls.caConfigMapRef.name … should be at least 1 chars long",
			"spec: {tls: {caConfigMapRef: {name: ca, key: ''}}}":                                            "spec.tls.caConfigMapRef.key … should be at least 1 chars long",
			fmt.Sprintf("spec: {tls: {caConfigMapRef: {name: %s, key: ca.crt}}}", strings.Repeat("x", 254)): "spec.tls.caConfigMapRef.name … may not be more than 253 bytes",
			fmt.Sprintf("spec: {tls: {caConfigMapRef: {name: ca, key: %s}}}", strings.Repeat("x", 254)):     "spec.tls.caConfigMapRef.key … may not be more than 253 bytes",
			"spec: {tls: {caConfigMapRef: {name: ca}}}":                                                     "spec.tls.caConfigMapRef.key: Required value",
			"spec: {tls: {caConfigMapRef: {name: CA, key: ca.crt}}}":                                        "spec.tls.caConfigMapRef.name … must be the name of a ConfigMap: lower-case letters, digits, dashes and dots",
			"spec: {tls: {caConfigMapRef: {name: ca, key: 'a/b'}}}":                                         "spec.tls.caConfigMapRef.key … must be a key of a ConfigMap: letters, digits, dashes, dots and underscores",
		},
	},
	"a client certificate": {
		good: []string{"spec: {tls: {clientCertificateSecretRef: {name: our-client.v2}, caSecretRef: {name: ca, key: ca.crt}}}"},
		bad: map[string]string{
			"spec: {tls: {clientCertificateSecretRef: {}}}":                                                "spec.tls.clientCertificateSecretRef.name: Required value",
			"spec: {tls: {clientCertificateSecretRef: {name: ''}}}":                                        "spec.tls.clientCertificateSecretRef.name … should be at least 1 chars long",
			"spec: {tls: {clientCertificateSecretRef: {name: Our_Client}}}":                                "spec.tls.clientCertificateSecretRef.name … must be the name of a Secret: lower-case letters, digits, dashes and dots",
			fmt.Sprintf("spec: {tls: {clientCertificateSecretRef: {name: %s}}}", strings.Repeat("x", 254)): "spec.tls.clientCertificateSecretRef.name … may not be more than 253 bytes",
		},
	},
	"a server's name": {
		good: []string{"spec: {tls: {serverName: hooks.example.com}}"},
		bad: map[string]string{
			"spec: {tls: {serverName: ''}}":                                        "spec.tls.serverName … should be at least 1 chars long",
			"spec: {tls: {serverName: 'https://example.com'}}":                     "spec.tls.serverName … must be a DNS name, such as hooks.example.com",
			fmt.Sprintf("spec: {tls: {serverName: %s}}", strings.Repeat("x", 254)): "spec.tls.serverName … may not be more than 253 bytes",
		},
	},
	"the least version of TLS": {
		good: []string{"spec: {tls: {minVersion: VersionTLS13}}", "spec: {tls: {minVersion: VersionTLS12}}"},
		bad:  map[string]string{"spec: {tls: {minVersion: VersionTLS11}}": "spec.tls.minVersion: Unsupported value"},
	},
	"certificates from a Secret": secretKeyRules("spec.tls.caSecretRef", "spec: {tls: {caSecretRef: %s}}", nil),
	"events are patterns": {
		good: []string{
			"spec: {events: [patient.created]}", "spec: {events: [practitioner-role.*, lab.updated, claim.deleted]}", "spec: {events: ['*']}",
			"spec: {events: ['*', eventflow.*]}", "spec: {events: [eventflow.endpoint.failing, eventflow.endpoint.recovered, eventflow.endpoint.gone, eventflow.delivery.failed, eventflow.key.rotated]}",
			fmt.Sprintf("spec: {events: [%s.created]}", strings.Repeat("x", 64)),
		},
		bad: map[string]string{
			"spec: {events: [patient]}":                                          "spec.events[0] … must be *, {resource}.*, {resource}.{created|updated|deleted}, or eventflow.* and its types",
			"spec: {events: ['*.created']}":                                      "spec.events[0] … must be *, {resource}.*, {resource}.{created|updated|deleted}, or eventflow.* and its types",
			"spec: {events: ['*', pat*.*]}":                                      "spec.events[1] … must be *, {resource}.*, {resource}.{created|updated|deleted}, or eventflow.* and its types",
			"spec: {events: [patient.read]}":                                     "spec.events[0] … must be *, {resource}.*, {resource}.{created|updated|deleted}, or eventflow.* and its types",
			"spec: {events: [Patient.created]}":                                  "spec.events[0] … must be *, {resource}.*, {resource}.{created|updated|deleted}, or eventflow.* and its types",
			"spec: {events: [-patient.created]}":                                 "spec.events[0] … must be *, {resource}.*, {resource}.{created|updated|deleted}, or eventflow.* and its types",
			"spec: {events: [patient.created.]}":                                 "spec.events[0] … must be *, {resource}.*, {resource}.{created|updated|deleted}, or eventflow.* and its types",
			`spec: {events: ["patient.*\n"]}`:                                    "spec.events[0] … must be *, {resource}.*, {resource}.{created|updated|deleted}, or eventflow.* and its types",
			"spec: {events: [eventflow.created]}":                                "spec.events[0] … must be *, {resource}.*, {resource}.{created|updated|deleted}, or eventflow.* and its types",
			"spec: {events: [eventflow.endpoint.*]}":                             "spec.events[0] … must be *, {resource}.*, {resource}.{created|updated|deleted}, or eventflow.* and its types",
			"spec: {events: [eventflow.endpoint.failed]}":                        "spec.events[0] … must be *, {resource}.*, {resource}.{created|updated|deleted}, or eventflow.* and its types",
			"spec: {events: ['']}":                                               "spec.events[0] … should be at least 1 chars long",
			fmt.Sprintf("spec: {events: [%s.created]}", strings.Repeat("x", 65)): "spec.events[0] … may not be more than 72 bytes",
		},
	},
	"a filter": {
		good: []string{"spec: {filter: \"event.data.status == 'final'\", filterErrors: Skip}", fmt.Sprintf("spec: {filter: %s}", strings.Repeat("x", 4096))},
		bad: map[string]string{
			"spec: {filter: ''}": "spec.filter … should be at least 1 chars long",
			fmt.Sprintf("spec: {filter: %s}", strings.Repeat("x", 4097)): "spec.filter … may not be more than 4096 bytes",
			"spec: {filterErrors: Retry}":                                "spec.filterErrors: Unsupported value",
		},
	},
	"events are a set": {
		good: []string{fmt.Sprintf("spec: {events: %s}", list(100, "r%d.*"))},
		bad: map[string]string{
			"spec: {events: null}":                                "spec.events: Required value",
			"spec: {events: []}":                                  "spec.events … should have at least 1 items",
			"spec: {events: [patient.*, patient.*]}":              "spec.events[1]: Duplicate value",
			fmt.Sprintf("spec: {events: %s}", list(101, "r%d.*")): "spec.events … must have at most 100 items",
		},
	},
	"signing": secretKeyRules("spec.signing.secretRef", "spec: {signing: {secretRef: %s}}", map[string]string{
		"spec: {signing: null}":              "spec.signing: Required value",
		"spec: {signing: {secretRef: null}}": "spec.signing.secretRef: Required value",
	}),
	"next key":     secretKeyRules("spec.signing.nextSecretRef", "spec: {signing: {nextSecretRef: %s}}", nil),
	"previous key": secretKeyRules("spec.signing.previousSecretRef", "spec: {signing: {previousSecretRef: %s}}", nil),
	"dispatcherRef": {
		good: []string{
			"spec: {dispatcherRef: {}}", "spec: {dispatcherRef: {name: europe-1, namespace: clinics}}", "spec: {dispatcherRef: {name: x}}",
			fmt.Sprintf("spec: {dispatcherRef: {name: %s, namespace: %s}}", strings.Repeat("x", 40), strings.Repeat("x", 63)),
		},
		bad: map[string]string{
			"spec: {dispatcherRef: {name: ''}}":                                                "spec.dispatcherRef.name … should be at least 1 chars long",
			"spec: {dispatcherRef: {name: Europe}}":                                            "spec.dispatcherRef.name … must be a DNS label, such as default",
			fmt.Sprintf("spec: {dispatcherRef: {name: %s}}", strings.Repeat("x", 41)):          "spec.dispatcherRef.name … may not be more than 40 bytes",
			"spec: {dispatcherRef: {namespace: ''}}":                                           "spec.dispatcherRef.namespace … should be at least 1 chars long",
			"spec: {dispatcherRef: {namespace: a.b}}":                                          "spec.dispatcherRef.namespace … must be a DNS label, such as eventflow-system",
			fmt.Sprintf("spec: {dispatcherRef: {namespace: %s}}", strings.Repeat("x", 64)):     "spec.dispatcherRef.namespace … may not be more than 63 bytes",
			"spec: {dispatcherRef: {name: default, namespace: eventflow-system, kind: Other}}": "unknown field \"spec.dispatcherRef.kind\"",
		},
	},
	"header names": {
		good: []string{
			"spec: {headers: [{name: X-Team, value: billing}, {name: Authorization, value: x}, {name: \"!#$%&'*+.^_`|~-\", value: x}]}",
			"spec: {headers: [{name: X-Clinician, value: x}, {name: Hostname, value: x}, {name: Webhook, value: x}, {name: Contents, value: x}]}",
			"spec: {headers: [{name: User-Agent, value: x}, {name: Certificate, value: x}, {name: X_Team, value: x}]}",
			fmt.Sprintf("spec: {headers: [{name: %s, value: x}]}", strings.Repeat("x", 128)),
		},
		bad: map[string]string{
			"spec: {headers: [{name: 'X Team', value: x}]}":                                  "spec.headers[0].name … must be an HTTP header name, such as X-Team",
			`spec: {headers: [{name: "X-Team\r\nX-Other", value: x}]}`:                       "spec.headers[0].name … must be an HTTP header name, such as X-Team",
			"spec: {headers: [{name: 'X-Team:', value: x}]}":                                 "spec.headers[0].name … must be an HTTP header name, such as X-Team",
			"spec: {headers: [{name: Prénom, value: x}]}":                                    "spec.headers[0].name … must be an HTTP header name, such as X-Team",
			"spec: {headers: [{name: '', value: x}]}":                                        "spec.headers[0].name … should be at least 1 chars long",
			"spec: {headers: [{value: x}]}":                                                  "spec.headers[0].name: Required value",
			fmt.Sprintf("spec: {headers: [{name: %s, value: x}]}", strings.Repeat("x", 129)): "spec.headers[0].name … may not be more than 128 bytes",
			"spec: {headers: [{name: host, value: x}]}":                                      "spec.headers[0].name … must not be a header that Event Flow or HTTP itself sets",
			"spec: {headers: [{name: Content-Length, value: x}]}":                            "spec.headers[0].name … must not be a header that Event Flow or HTTP itself sets",
			"spec: {headers: [{name: TRANSFER-ENCODING, value: x}]}":                         "spec.headers[0].name … must not be a header that Event Flow or HTTP itself sets",
			"spec: {headers: [{name: X-Clinik-Signature, value: x}]}":                        "spec.headers[0].name … must not be a header that Event Flow or HTTP itself sets",
			"spec: {headers: [{name: x-clinikapi-signature, value: x}]}":                     "spec.headers[0].name … must not be a header that Event Flow or HTTP itself sets",
			"spec: {headers: [{name: ce-id, value: x}]}":                                     "spec.headers[0].name … must not be a header that Event Flow or HTTP itself sets",
			"spec: {headers: [{name: Ce_Type, value: x}]}":                                   "spec.headers[0].name … must not be a header that Event Flow or HTTP itself sets",
			"spec: {headers: [{name: HTTP2-Settings, value: x}]}":                            "spec.headers[0].name … must not be a header that Event Flow or HTTP itself sets",
			"spec: {headers: [{name: Webhook-Id, value: x}]}":                                "spec.headers[0].name … must not be a header that Event Flow or HTTP itself sets",
			"spec: {headers: [{name: Proxy-Authorization, value: x}]}":                       "spec.headers[0].name … must not be a header that Event Flow or HTTP itself sets",
		},
	},
	"headers are a map": {
		good: []string{
			fmt.Sprintf("spec: {headers: %s}", list(32, "{name: X-%d, value: x}")),
			fmt.Sprintf("spec: {headers: %s}", list(4, "{name: X-%d, value: "+strings.Repeat("x", 4093)+"}")),
		},
		bad: map[string]string{
			"spec: {headers: []}": "spec.headers … should have at least 1 items",
			fmt.Sprintf("spec: {headers: %s}", list(4, "{name: X-%d, value: "+strings.Repeat("x", 4094)+"}")): "spec.headers: Invalid value … the names and values of all headers must have 16384 characters at most",
			"spec: {headers: [{name: X-A, value: x}, {name: X-A, value: z}]}":                                 "spec.headers[1]: Duplicate value",
			"spec: {headers: [{name: X-A, value: x}, {name: x-a, value: z}]}":                                 "spec.headers: Invalid value … must not name a header twice: upper and lower case are the same",
			fmt.Sprintf("spec: {headers: %s}", list(33, "{name: X-%d, value: x}")):                            "spec.headers … must have at most 32 items",
		},
	},
	"header values": {
		good: []string{
			`spec: {headers: [{name: X-Team, value: "a\tb"}]}`, "spec: {headers: [{name: X-Team, value: Praxis Müller}]}",
			fmt.Sprintf("spec: {headers: [{name: X-Team, value: %s}]}", strings.Repeat("x", 4096)),
			"spec: {headers: [{name: X-Team, valueFrom: {secretKeyRef: {name: team, key: token}}}]}",
		},
		bad: map[string]string{
			`spec: {headers: [{name: X-Team, value: "a\nb"}]}`:                                                 "spec.headers[0].value … must not contain control characters such as a newline or NUL",
			`spec: {headers: [{name: X-Team, value: "a\rb"}]}`:                                                 "spec.headers[0].value … must not contain control characters such as a newline or NUL",
			`spec: {headers: [{name: X-Team, value: "a\u0000b"}]}`:                                             "spec.headers[0].value … must not contain control characters such as a newline or NUL",
			`spec: {headers: [{name: X-Team, value: "a\u007fb"}]}`:                                             "spec.headers[0].value … must not contain control characters such as a newline or NUL",
			"spec: {headers: [{name: X-Team, value: ''}]}":                                                     "spec.headers[0].value … should be at least 1 chars long",
			fmt.Sprintf("spec: {headers: [{name: X-Team, value: %s}]}", strings.Repeat("x", 4097)):             "spec.headers[0].value … may not be more than 4096 bytes",
			"spec: {headers: [{name: X-Team}]}":                                                                "spec.headers[0]: Invalid value … exactly one of value and valueFrom must be set",
			"spec: {headers: [{name: X-Team, value: x, valueFrom: {secretKeyRef: {name: team, key: token}}}]}": "spec.headers[0]: Invalid value … exactly one of value and valueFrom must be set",
		},
	},
	"header values from Secrets": secretKeyRules("spec.headers[0].valueFrom.secretKeyRef",
		"spec: {headers: [{name: X-Team, valueFrom: {secretKeyRef: %s}}]}",
		map[string]string{"spec: {headers: [{name: X-Team, valueFrom: {}}]}": "spec.headers[0].valueFrom.secretKeyRef: Required value"}),
	"timeout":      durationRules("spec.timeout", "spec: {timeout: %s}", "1s", "60s", "45s"),
	"initialDelay": durationRules("spec.retry.initialDelay", "spec: {retry: {maxDelay: 24h, initialDelay: %s}}", "1s", "24h", "1m30s"),
	"maxDelay":     durationRules("spec.retry.maxDelay", "spec: {retry: {initialDelay: 1s, maxDelay: %s}}", "1s", "24h", "1m30s"),
	"maxAge":       durationRules("spec.retry.maxAge", "spec: {retry: {maxAge: %s}}", "1s", "168h", "36h"),
	"initialDelay and maxDelay": {
		good: []string{"spec: {retry: {initialDelay: 60s, maxDelay: 1m}}", "spec: {retry: {initialDelay: 2h}}"},
		bad:  map[string]string{"spec: {retry: {initialDelay: 3h}}": "spec.retry: Invalid value … initialDelay must not be longer than maxDelay"},
	},
	"factor":      integerRules("spec.retry.factor", "spec: {retry: {factor: %d}}", 1, 10),
	"maxAttempts": integerRules("spec.retry.maxAttempts", "spec: {retry: {maxAttempts: %d}}", 1, 10000),
	"maxInFlight": integerRules("spec.delivery.maxInFlight", "spec: {delivery: {maxInFlight: %d}}", 1, 256),
	"ordering": {
		good: []string{"spec: {delivery: {ordering: None}}", "spec: {delivery: {ordering: ByResource}}"},
		bad:  map[string]string{"spec: {delivery: {ordering: fifo}}": `spec.delivery.ordering: Unsupported value: "fifo": supported values: "None", "ByResource"`},
	},
	"mode": {
		good: []string{
			"spec: {delivery: {mode: Push}}", "spec: {url: null, delivery: {mode: Pull}}",
			"spec: {url: null, delivery: {mode: Pull, ordering: None, maxInFlight: 4}, headers: [{name: X-Team, value: billing}], suspend: true}",
			"spec: {url: null, delivery: {mode: Pull}, filter: 'true', schedule: {at: event.data.start, recheck: 'true'}, retry: {maxAge: 24h}}",
			"spec: {url: null, delivery: {mode: Pull}, transform: {body: event.data}, payload: {mode: Thin, format: CloudEvents}}",
			"spec: {url: null, delivery: {mode: Pull}, transform: {method: POST, headers: [{name: X-Kind, value: event.type}]}}",
		},
		bad: map[string]string{
			"spec: {delivery: {mode: Poll}}": `spec.delivery.mode: Unsupported value: "Poll": supported values: "Push", "Pull"`,
			"spec: {delivery: {mode: Pull}}": "spec: Invalid value … url, urlFrom and serviceRef do not go with delivery.mode Pull: the consumer asks for its deliveries",
			"spec: {url: null, urlFrom: {secretKeyRef: {name: urls, key: billing}}, delivery: {mode: Pull}}":       "spec: Invalid value … url, urlFrom and serviceRef do not go with delivery.mode Pull: the consumer asks for its deliveries",
			"spec: {url: null, serviceRef: {name: hooks, port: 443}, delivery: {mode: Pull}}":                      "spec: Invalid value … url, urlFrom and serviceRef do not go with delivery.mode Pull: the consumer asks for its deliveries",
			"spec: {url: null, delivery: {mode: Pull}, auth: {bearer: {secretKeyRef: {name: token, key: token}}}}": "spec: Invalid value … auth, tls, handshake, outcome and lookup are about an endpoint: they do not go with delivery.mode Pull",
			"spec: {url: null, delivery: {mode: Pull}, tls: {minVersion: VersionTLS13}}":                           "spec: Invalid value … auth, tls, handshake, outcome and lookup are about an endpoint: they do not go with delivery.mode Pull",
			"spec: {url: null, delivery: {mode: Pull}, handshake: {origin: clinic.example}}":                       "spec: Invalid value … auth, tls, handshake, outcome and lookup are about an endpoint: they do not go with delivery.mode Pull",
			"spec: {url: null, delivery: {mode: Pull}, outcome: {success: response.status == 200}}":                "spec: Invalid value … auth, tls, handshake, outcome and lookup are about an endpoint: they do not go with delivery.mode Pull",
			"spec: {url: null, delivery: {mode: Pull}, lookup: {url: \"'https://a.example/'\"}}":                   "spec: Invalid value … auth, tls, handshake, outcome and lookup are about an endpoint: they do not go with delivery.mode Pull",
			"spec: {url: null, delivery: {mode: Pull}, transform: {method: PUT}}":                                  "spec: Invalid value … transform.method and transform.urlSuffix are about an endpoint: they do not go with delivery.mode Pull",
			"spec: {url: null, delivery: {mode: Pull}, transform: {urlSuffix: \"'/x'\"}}":                          "spec: Invalid value … transform.method and transform.urlSuffix are about an endpoint: they do not go with delivery.mode Pull",
			"spec: {url: null, delivery: {mode: Pull, ordering: ByResource}}":                                      "spec.delivery: Invalid value … ordering ByResource and rateLimit do not go with mode Pull: the consumer gets all deliveries in order, at its own pace",
			"spec: {url: null, delivery: {mode: Pull, rateLimit: {requestsPerSecond: 5}}}":                         "spec.delivery: Invalid value … ordering ByResource and rateLimit do not go with mode Pull: the consumer gets all deliveries in order, at its own pace",
		},
	},
	"rateLimit": {
		good: []string{"spec: {delivery: {rateLimit: {requestsPerSecond: 1}}}", "spec: {delivery: {rateLimit: {requestsPerSecond: 10000}}}"},
		bad: map[string]string{
			"spec: {delivery: {rateLimit: {}}}":                         "spec.delivery.rateLimit.requestsPerSecond: Required value",
			"spec: {delivery: {rateLimit: {requestsPerSecond: 0}}}":     "spec.delivery.rateLimit.requestsPerSecond … should be greater than or equal to 1",
			"spec: {delivery: {rateLimit: {requestsPerSecond: 10001}}}": "spec.delivery.rateLimit.requestsPerSecond … should be less than or equal to 10000",
		},
	},
	"payload": {
		good: []string{"spec: {payload: {mode: Full}}", "spec: {payload: {mode: Thin}}"},
		bad:  map[string]string{"spec: {payload: {mode: thin}}": `spec.payload.mode: Unsupported value: "thin": supported values: "Full", "Thin"`},
	},
	"unknown fields": {
		good: []string{"spec: {suspend: true}"},
		bad: map[string]string{
			"spec: {filters: event.data.status == 'finished'}": `unknown field "spec.filters"`,
			"spec: {retry: {maxRetries: 3}}":                   `unknown field "spec.retry.maxRetries"`,
		},
	},
}

var subscriptionTransitions = map[string]rule{
	"dispatcherRef stays": {
		good: []string{"spec: {suspend: true, dispatcherRef: {name: default}}", "spec: {dispatcherRef: null}"},
		bad: map[string]string{
			"spec: {dispatcherRef: {name: other}}": "spec: Invalid value … dispatcherRef is immutable: deliveries wait at the dispatcher they were accepted by; create a new subscription instead",
		},
	},
}

var subscriptionStatusRules = map[string]rule{
	"observedGeneration": {
		good: []string{"status: {observedGeneration: 1}", "status: {observedGeneration: -1}"},
		bad:  map[string]string{"status: {observedGeneration: -2}": "status.observedGeneration … should be greater than or equal to -1"},
	},
	"programmedGeneration": {
		good: []string{"status: {programmedGeneration: 1}"},
		bad:  map[string]string{"status: {programmedGeneration: 0}": "status.programmedGeneration … should be greater than or equal to 1"},
	},
	"endpoint": {
		good: []string{"status: {endpoint: 'https://billing.example.com'}"},
		bad: map[string]string{
			"status: {endpoint: ''}": "status.endpoint … should be at least 1 chars long",
			fmt.Sprintf("status: {endpoint: %s}", strings.Repeat("x", 513)): "status.endpoint … may not be more than 512 bytes",
		},
	},
	"conditions": conditionRules,
	"deliveries": {
		good: []string{"status: {deliveries: {pending: 0, delivered: 0, retrying: 0, failed: 0}}"},
		bad: map[string]string{
			"status: {deliveries: {pending: -1}}":   "status.deliveries.pending … should be greater than or equal to 0",
			"status: {deliveries: {scheduled: -1}}": "status.deliveries.scheduled … should be greater than or equal to 0",
			"status: {deliveries: {delivered: -1}}": "status.deliveries.delivered … should be greater than or equal to 0",
			"status: {deliveries: {retrying: -1}}":  "status.deliveries.retrying … should be greater than or equal to 0",
			"status: {deliveries: {failed: -1}}":    "status.deliveries.failed … should be greater than or equal to 0",
		},
	},
	"lastFailure": {
		good: []string{
			"status: {deliveries: {lastFailure: {time: '2026-01-15T09:15:00Z', statusCode: 503, reason: StatusCode}}}",
			"status: {deliveries: {lastFailure: {time: '2026-01-15T09:15:00Z', reason: Timeout}}}",
		},
		bad: map[string]string{
			"status: {deliveries: {lastFailure: {reason: Timeout}}}":                                                                "status.deliveries.lastFailure.time: Required value",
			"status: {deliveries: {lastFailure: {time: '2026-01-15T09:15:00Z'}}}":                                                   "status.deliveries.lastFailure.reason: Required value",
			"status: {deliveries: {lastFailure: {time: '2026-01-15T09:15:00Z', reason: ''}}}":                                       "status.deliveries.lastFailure.reason … should be at least 1 chars long",
			fmt.Sprintf("status: {deliveries: {lastFailure: {time: '2026-01-15T09:15:00Z', reason: %s}}}", strings.Repeat("x", 65)): "status.deliveries.lastFailure.reason … may not be more than 64 bytes",
			"status: {deliveries: {lastFailure: {time: '2026-01-15T09:15:00Z', reason: StatusCode, statusCode: 99}}}":               "status.deliveries.lastFailure.statusCode … should be greater than or equal to 100",
			"status: {deliveries: {lastFailure: {time: '2026-01-15T09:15:00Z', reason: StatusCode, statusCode: 1000}}}":             "status.deliveries.lastFailure.statusCode … should be less than or equal to 999",
		},
	},
	"signing keys": signingKeyRules,
	"retrying": {
		good: []string{
			"status: {retrying: " + list(10, retrying("deliveryID: dlv_%d")) + "}",
			"status: {retrying: [" + retrying("lastStatusCode: 503") + "]}",
		},
		bad: map[string]string{
			"status: {retrying: " + list(11, retrying("deliveryID: dlv_%d")) + "}":                   "status.retrying … must have at most 10 items",
			"status: {retrying: [" + retrying("attempts: 1") + ", " + retrying("attempts: 2") + "]}": "status.retrying[1]: Duplicate value",
			"status: {retrying: [" + retrying("deliveryID: null") + "]}":                             "status.retrying[0].deliveryID: Required value",
			"status: {retrying: [" + retrying("deliveryID: ''") + "]}":                               "status.retrying[0].deliveryID … should be at least 1 chars long",
			"status: {retrying: [" + retrying("deliveryID: "+strings.Repeat("x", 65)) + "]}":         "status.retrying[0].deliveryID … may not be more than 64 bytes",
			"status: {retrying: [" + retrying("eventType: null") + "]}":                              "status.retrying[0].eventType: Required value",
			"status: {retrying: [" + retrying("eventType: ''") + "]}":                                "status.retrying[0].eventType … should be at least 1 chars long",
			"status: {retrying: [" + retrying("eventType: "+strings.Repeat("x", 73)) + "]}":          "status.retrying[0].eventType … may not be more than 72 bytes",
			"status: {retrying: [" + retrying("attempts: null") + "]}":                               "status.retrying[0].attempts: Required value",
			"status: {retrying: [" + retrying("attempts: 0") + "]}":                                  "status.retrying[0].attempts … should be greater than or equal to 1",
			"status: {retrying: [" + retrying("nextAttemptTime: null") + "]}":                        "status.retrying[0].nextAttemptTime: Required value",
			"status: {retrying: [" + retrying("lastStatusCode: 99") + "]}":                           "status.retrying[0].lastStatusCode … should be greater than or equal to 100",
			"status: {retrying: [" + retrying("lastStatusCode: 1000") + "]}":                         "status.retrying[0].lastStatusCode … should be less than or equal to 999",
		},
	},
}
