package v1alpha1_test

import (
	"fmt"
	"maps"
	"strings"
)

const postgresStore = "{postgres: {connectionSecretRef: {name: db, key: uri}}}"

func init() {
	maps.Copy(dispatcherRules, tenantLimitRules("spec.quotas", "spec: {quotas: {%s}}"))
	maps.Copy(dispatcherRules, tenantLimitRules("spec.quotas.overrides[0]", "spec: {quotas: {overrides: [{namespaceSelector: {}, %s}]}}"))
}

var dispatcherRules = map[string]rule{
	"name": {
		good: []string{"metadata: {name: d}", "metadata: {name: europe-1}", fmt.Sprintf("metadata: {name: %s}", strings.Repeat("x", 40))},
		bad: map[string]string{
			"metadata: {name: europe.1}":                                 "<nil>: Invalid value: the name must be a DNS label of at most 40 characters, such as default: the names of its Service and its pods are made of it",
			"metadata: {name: 1st}":                                      "<nil>: Invalid value: the name must be a DNS label of at most 40 characters",
			fmt.Sprintf("metadata: {name: %s}", strings.Repeat("x", 41)): "<nil>: Invalid value: the name must be a DNS label of at most 40 characters",
		},
	},
	"replicas": {
		good: []string{"spec: {replicas: 0}", "spec: {replicas: 1}"},
		bad: map[string]string{
			"spec: {replicas: -1}":  "spec.replicas … should be greater than or equal to 0",
			"spec: {replicas: 101}": "spec.replicas … should be less than or equal to 100",
		},
	},
	"one replica with the embedded store": {
		good: []string{
			"spec: {replicas: 1, store: {embedded: {size: 1Gi}}}", "spec: {replicas: 0}", "spec: {replicas: null}",
			"spec: {replicas: 100, store: " + postgresStore + "}",
		},
		bad: map[string]string{
			"spec: {replicas: 2}":                        "spec: Invalid value … the embedded store works with at most one replica",
			"spec: {replicas: 2, store: {embedded: {}}}": "spec: Invalid value … the embedded store works with at most one replica",
		},
	},
	"exactly one store": {
		good: []string{"spec: {store: {embedded: {}}}", "spec: {store: null}", "spec: {store: " + postgresStore + "}"},
		bad: map[string]string{
			"spec: {store: {}}": "spec.store: Invalid value … exactly one of the fields in [embedded postgres] must be set",
			"spec: {store: {embedded: {}, postgres: {connectionSecretRef: {name: db, key: uri}}}}": "spec.store: Invalid value … exactly one of the fields in [embedded postgres] must be set",
		},
	},
	"database connection": secretKeyRules("spec.store.postgres.connectionSecretRef", "spec: {store: {postgres: {connectionSecretRef: %s}}}",
		map[string]string{"spec: {store: {postgres: {}}}": "spec.store.postgres.connectionSecretRef: Required value"}),
	"database certificates": secretKeyRules("spec.store.postgres.caSecretRef",
		"spec: {store: {postgres: {connectionSecretRef: {name: db, key: uri}, caSecretRef: %s}}}", nil),
	"store size": {
		good: []string{"spec: {store: {embedded: {size: 64Mi}}}", "spec: {store: {embedded: {size: 1073741824}}}", "spec: {store: {embedded: {size: 1.5Ti}}}"},
		bad: map[string]string{
			"spec: {store: {embedded: {size: 63Mi}}}": "spec.store.embedded.size … must be at least 64Mi",
			"spec: {store: {embedded: {size: 10}}}":   "spec.store.embedded.size … must be at least 64Mi",
			"spec: {store: {embedded: {size: -1Gi}}}": "spec.store.embedded.size … must be at least 64Mi",
			"spec: {store: {embedded: {size: big}}}":  "spec.store.embedded.size … should match '^(\\+|-)?(([0-9]+(\\.[0-9]*)?)|(\\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\\+|-)?(([0-9]+(\\.[0-9]*)?)|(\\.[0-9]+))))?$'",
		},
	},
	"encryption": {
		good: []string{
			"spec: {encryption: {mode: Enabled}}", "spec: {encryption: {mode: Enabled, keySecretRef: {name: hospital-kek}}}",
			"spec: {encryption: {mode: Disabled}}", "spec: {encryption: {}}",
		},
		bad: map[string]string{
			"spec: {encryption: {mode: enabled}}":                                          `spec.encryption.mode: Unsupported value: "enabled": supported values: "Disabled", "Enabled"`,
			"spec: {encryption: {keySecretRef: {}}}":                                       "spec.encryption.keySecretRef.name: Required value",
			"spec: {encryption: {keySecretRef: {name: ''}}}":                               "spec.encryption.keySecretRef.name … should be at least 1 chars long",
			"spec: {encryption: {keySecretRef: {name: A}}}":                                "spec.encryption.keySecretRef.name … must be the name of a Secret: lower-case letters, digits, dashes and dots",
			"spec: {encryption: {keySecretRef: {name: " + strings.Repeat("x", 254) + "}}}": "spec.encryption.keySecretRef.name … may not be more than 253 bytes",
		},
	},
	"storage class": {
		good: []string{"spec: {store: {embedded: {storageClassName: fast-ssd}}}"},
		bad: map[string]string{
			"spec: {store: {embedded: {storageClassName: ''}}}":                                        "spec.store.embedded.storageClassName … should be at least 1 chars long",
			fmt.Sprintf("spec: {store: {embedded: {storageClassName: %s}}}", strings.Repeat("x", 254)): "spec.store.embedded.storageClassName … may not be more than 253 bytes",
		},
	},
	"namespaceSelector": {
		good: []string{"spec: {subscriptions: {namespaceSelector: {matchLabels: {tier: clinic}}}}"},
		bad:  map[string]string{"spec: {subscriptions: {namespaceSelector: {labels: {tier: clinic}}}}": `unknown field "spec.subscriptions.namespaceSelector.labels"`},
	},
	"authentication": {
		good: []string{"spec: {ingest: {authentication: Kubernetes}}", "spec: {ingest: {authentication: None}}"},
		bad:  map[string]string{"spec: {ingest: {authentication: none}}": `spec.ingest.authentication: Unsupported value: "none": supported values: "Kubernetes", "None"`},
	},
	"maxEventBytes": integerRules("spec.ingest.maxEventBytes", "spec: {ingest: {maxEventBytes: %d}}", 1024, 8388608),
	"hosts": {
		good: []string{
			"spec: {ingest: {authentication: None, hosts: [events.example.com, hooks]}}", "spec: {ingest: {hosts: " + list(64, "h%d.example.com") + "}}",
		},
		bad: map[string]string{
			"spec: {ingest: {hosts: []}}":                                          "spec.ingest.hosts … should have at least 1 items",
			"spec: {ingest: {hosts: " + list(65, "h%d.example.com") + "}}":         "spec.ingest.hosts … must have at most 64 items",
			"spec: {ingest: {hosts: [a.example.com, a.example.com]}}":              "spec.ingest.hosts[1]: Duplicate value",
			"spec: {ingest: {hosts: ['']}}":                                        "spec.ingest.hosts[0] … should be at least 1 chars long",
			fmt.Sprintf("spec: {ingest: {hosts: [%s]}}", strings.Repeat("x", 254)): "spec.ingest.hosts[0] … may not be more than 253 bytes",
			"spec: {ingest: {hosts: ['events.example.com:8080']}}":                 "spec.ingest.hosts[0] … must be a host name in lower case, without a port, such as events.example.com",
			"spec: {ingest: {hosts: [Events.example.com]}}":                        "spec.ingest.hosts[0] … must be a host name in lower case, without a port, such as events.example.com",
		},
	},
	"audit": {
		good: []string{"spec: {audit: {}}", "spec: {audit: {level: None}}", "spec: {audit: {level: Writes}}", "spec: {audit: {level: Reads}}", "spec: {audit: {level: All}}"},
		bad:  map[string]string{"spec: {audit: {level: Metadata}}": "spec.audit.level: Unsupported value"},
	},
	"audiences": {
		good: []string{
			"spec: {ingest: {audiences: [eventflow, 'https://events.example.com']}}", "spec: {ingest: {audiences: " + list(8, "a%d") + "}}",
			fmt.Sprintf("spec: {ingest: {audiences: [%s]}}", strings.Repeat("x", 256)),
		},
		bad: map[string]string{
			"spec: {ingest: {audiences: []}}":                                          "spec.ingest.audiences … should have at least 1 items",
			"spec: {ingest: {audiences: " + list(9, "a%d") + "}}":                      "spec.ingest.audiences … must have at most 8 items",
			"spec: {ingest: {audiences: [a, a]}}":                                      "spec.ingest.audiences[1]: Duplicate value",
			"spec: {ingest: {audiences: ['']}}":                                        "spec.ingest.audiences[0] … should be at least 1 chars long",
			fmt.Sprintf("spec: {ingest: {audiences: [%s]}}", strings.Repeat("x", 257)): "spec.ingest.audiences[0] … may not be more than 256 bytes",
			"spec: {ingest: {authentication: None, audiences: [a]}}":                   "spec.ingest: Invalid value … audiences and clientCA are about who publishes: they need authentication Kubernetes",
		},
	},
	"ingest TLS": {
		good: []string{
			"spec: {ingest: {tls: {}}}", "spec: {ingest: {tls: {mode: Required}}}", "spec: {ingest: {tls: {mode: Optional, certificateSecretRef: {name: tls}}}}",
			"spec: {ingest: {tls: {mode: Disabled}}}", "spec: {ingest: {tls: {certificateSecretRef: {name: tls}}}}",
		},
		bad: map[string]string{
			"spec: {ingest: {tls: {mode: Off}}}":                                         "spec.ingest.tls.mode: Unsupported value",
			"spec: {ingest: {tls: {mode: Disabled, certificateSecretRef: {name: tls}}}}": "spec.ingest.tls: Invalid value … a certificate is of no use while mode is Disabled: remove certificateSecretRef",
		},
	},
	"ingest certificate": {
		good: []string{"spec: {ingest: {tls: {certificateSecretRef: {name: tls}}}}"},
		bad: map[string]string{
			"spec: {ingest: {tls: {certificateSecretRef: {}}}}":                                       "spec.ingest.tls.certificateSecretRef.name: Required value",
			"spec: {ingest: {tls: {certificateSecretRef: {name: ''}}}}":                               "spec.ingest.tls.certificateSecretRef.name … should be at least 1 chars long",
			"spec: {ingest: {tls: {certificateSecretRef: {name: A}}}}":                                "spec.ingest.tls.certificateSecretRef.name … must be the name of a Secret: lower-case letters, digits, dashes and dots",
			"spec: {ingest: {tls: {certificateSecretRef: {name: " + strings.Repeat("x", 254) + "}}}}": "spec.ingest.tls.certificateSecretRef.name … may not be more than 253 bytes",
		},
	},
	"client CA in a Secret":    secretKeyRules("spec.ingest.clientCA.secretKeyRef", "spec: {ingest: {clientCA: {secretKeyRef: %s}}}", nil),
	"client CA in a ConfigMap": ofConfigMap(secretKeyRules("spec.ingest.clientCA.configMapKeyRef", "spec: {ingest: {clientCA: {configMapKeyRef: %s}}}", nil)),
	"client CA": {
		good: []string{
			"spec: {ingest: {clientCA: {configMapKeyRef: {name: producers, key: ca.crt}}}}",
			"spec: {ingest: {tls: {mode: Optional}, clientCA: {secretKeyRef: {name: producers, key: ca.crt}}}}",
		},
		bad: map[string]string{
			"spec: {ingest: {clientCA: {}}}": "spec.ingest.clientCA: Invalid value … exactly one of the fields in [configMapKeyRef secretKeyRef] must be set",
			"spec: {ingest: {clientCA: {configMapKeyRef: {name: p, key: k}, secretKeyRef: {name: p, key: k}}}}": "spec.ingest.clientCA: Invalid value … exactly one of the fields in [configMapKeyRef secretKeyRef] must be set",
			"spec: {ingest: {tls: {mode: Disabled}, clientCA: {configMapKeyRef: {name: p, key: k}}}}":           "spec.ingest: Invalid value … client certificates need TLS: set tls.mode to Required or Optional, or remove clientCA",
			"spec: {ingest: {authentication: None, clientCA: {configMapKeyRef: {name: p, key: k}}}}":            "spec.ingest: Invalid value … audiences and clientCA are about who publishes: they need authentication Kubernetes",
		},
	},
	"outageGrace": {
		good: []string{"spec: {ingest: {outageGrace: 0s}}", "spec: {ingest: {outageGrace: 90s}}", "spec: {ingest: {outageGrace: 5m}}"},
		bad: map[string]string{
			"spec: {ingest: {outageGrace: 5m1s}}":                               "spec.ingest.outageGrace … must be a duration from 0s to 5m, written like 90s",
			"spec: {ingest: {outageGrace: -1s}}":                                "spec.ingest.outageGrace … must be a duration from 0s to 5m, written like 90s",
			"spec: {ingest: {outageGrace: " + strings.Repeat("1s", 16) + "1s}}": "spec.ingest.outageGrace … may not be more than 32 bytes",
			"spec: {ingest: {outageGrace: long}}":                               "spec.ingest.outageGrace … must be a duration from 0s to 5m, written like 90s",
		},
	},
	"quota overrides": {
		good: []string{
			"spec: {quotas: {subscriptions: 10, overrides: [{namespaceSelector: {matchLabels: {tier: gold}}, subscriptions: 100, pendingBytes: 10Gi}, {namespaceSelector: {}, eventsPerSecond: 5}]}}",
			"spec: {quotas: {overrides: " + list(12, "{namespaceSelector: {matchLabels: {n: '%d'}}}") + "}}",
		},
		bad: map[string]string{
			"spec: {quotas: {overrides: []}}": "spec.quotas.overrides … should have at least 1 items",
			"spec: {quotas: {overrides: " + list(13, "{namespaceSelector: {matchLabels: {n: '%d'}}}") + "}}": "spec.quotas.overrides … must have at most 12 items",
			"spec: {quotas: {overrides: [{subscriptions: 1}]}}":                                              "spec.quotas.overrides[0].namespaceSelector: Required value",
			"spec: {quotas: {overrides: [{namespaceSelector: {}, pendingBytes: 1Ki}]}}":                      "spec.quotas.overrides[0].pendingBytes … must be at least 1Mi",
			"spec: {quotas: {overrides: [{namespaceSelector: {}, overrides: [{namespaceSelector: {}}]}]}}":   `unknown field "spec.quotas.overrides[0].overrides"`,
		},
	},
	"attempts in flight": integerRules("spec.limits.attemptsInFlight", "spec: {limits: {attemptsInFlight: %d}}", 1, 1000000),
	"connections":        integerRules("spec.limits.connections", "spec: {limits: {connections: %d}}", 16, 1000000),
	"memory":             quantityRules("spec.limits.memory", "spec: {limits: {memory: %s}}", "16Mi", "16M"),
	"hosts of egress rules": hostRules("spec.egress.rules[0].hosts", "spec: {egress: {rules: [{namespaceSelector: {}, hosts: %s}]}}", map[string]string{
		"spec: {egress: {rules: [{namespaceSelector: {}, hosts: [example.com], ports: [443]}]}}": "spec.egress.rules[0]: Invalid value … ports are those of cidrs: name these, too",
	}),
	"a proxy": {
		good: []string{
			"spec: {egress: {proxy: {url: 'http://proxy.example.com:3128'}}}", "spec: {egress: {proxy: {url: 'https://[fd00::1]:443', connect: Host, secretRef: {name: proxy}}}}",
		},
		bad: map[string]string{
			"spec: {egress: {proxy: {}}}":                                                                              "spec.egress.proxy.url: Required value",
			"spec: {egress: {proxy: {url: ''}}}":                                                                       "spec.egress.proxy.url … should be at least 1 chars long",
			"spec: {egress: {proxy: {url: 'http://" + strings.Repeat("x", 264) + ":80'}}}":                             "spec.egress.proxy.url … may not be more than 270 bytes",
			"spec: {egress: {proxy: {url: 'http://proxy'}}}":                                                           "spec.egress.proxy.url … must be a scheme, a host and a port, such as http://proxy.example.com:3128",
			"spec: {egress: {proxy: {url: 'socks5://proxy:1080'}}}":                                                    "spec.egress.proxy.url … must be a scheme, a host and a port, such as http://proxy.example.com:3128",
			"spec: {egress: {proxy: {url: 'http://me:secret@proxy:3128'}}}":                                            "spec.egress.proxy.url … must be a scheme, a host and a port, such as http://proxy.example.com:3128",
			"spec: {egress: {proxy: {url: 'http://proxy:3128/'}}}":                                                     "spec.egress.proxy.url … must be a scheme, a host and a port, such as http://proxy.example.com:3128",
			"spec: {egress: {proxy: {url: 'http://proxy:0'}}}":                                                         "spec.egress.proxy.url … must be a scheme, a host and a port, such as http://proxy.example.com:3128",
			"spec: {egress: {proxy: {url: 'http://proxy:3128', connect: Name}}}":                                       "spec.egress.proxy.connect: Unsupported value",
			"spec: {egress: {proxy: {url: 'http://proxy:3128', secretRef: {}}}}":                                       "spec.egress.proxy.secretRef.name: Required value",
			"spec: {egress: {proxy: {url: 'http://proxy:3128', secretRef: {name: ''}}}}":                               "spec.egress.proxy.secretRef.name … should be at least 1 chars long",
			"spec: {egress: {proxy: {url: 'http://proxy:3128', secretRef: {name: My_Proxy}}}}":                         "spec.egress.proxy.secretRef.name … must be the name of a Secret: lower-case letters, digits, dashes and dots",
			"spec: {egress: {proxy: {url: 'http://proxy:3128', secretRef: {name: " + strings.Repeat("x", 254) + "}}}}": "spec.egress.proxy.secretRef.name … may not be more than 253 bytes",
		},
	},
	"approval": {
		good: []string{"spec: {egress: {approval: Required}}", "spec: {egress: {approval: None}}"},
		bad:  map[string]string{"spec: {egress: {approval: Asked}}": "spec.egress.approval: Unsupported value"},
	},
	"egress rules": {
		good: []string{
			"spec: {egress: {rules: [{namespaceSelector: {matchLabels: {tier: gold}}, cidrs: [10.96.0.10/32, 'fd00::/8'], ports: [443, 8443]}, {namespaceSelector: {}, cidrs: [10.0.0.0/8]}]}}",
			"spec: {egress: {rules: " + list(64, "{namespaceSelector: {}, cidrs: [10.0.%d.0/24]}") + "}}",
		},
		bad: map[string]string{
			"spec: {egress: {rules: []}}": "spec.egress.rules … should have at least 1 items",
			"spec: {egress: {rules: " + list(65, "{namespaceSelector: {}, cidrs: [10.0.%d.0/24]}") + "}}":             "spec.egress.rules … must have at most 64 items",
			"spec: {egress: {rules: [{namespaceSelector: {}, cidrs: [10.0.0.0/8, 10.0.0.0/8]}]}}":                     "spec.egress.rules[0].cidrs[1]: Duplicate value",
			"spec: {egress: {rules: [{namespaceSelector: {}, cidrs: ['']}]}}":                                         "spec.egress.rules[0].cidrs[0] … should be at least 1 chars long",
			"spec: {egress: {rules: [{namespaceSelector: {}, cidrs: ['" + strings.Repeat("1", 44) + "']}]}}":          "spec.egress.rules[0].cidrs[0] … may not be more than 43 bytes",
			"spec: {egress: {rules: [{namespaceSelector: {}, cidrs: [10.0.0.0/8], ports: [443, 443]}]}}":              "spec.egress.rules[0].ports[1]: Duplicate value",
			"spec: {egress: {rules: [{cidrs: [10.0.0.0/8]}]}}":                                                        "spec.egress.rules[0].namespaceSelector: Required value",
			"spec: {egress: {rules: [{namespaceSelector: {}}]}}":                                                      "spec.egress.rules[0]: Invalid value … at least one of cidrs and hosts must be set",
			"spec: {egress: {rules: [{namespaceSelector: {}, cidrs: []}]}}":                                           "spec.egress.rules[0].cidrs … should have at least 1 items",
			"spec: {egress: {rules: [{namespaceSelector: {}, cidrs: [10.0.0.1]}]}}":                                   "spec.egress.rules[0].cidrs[0] … must be a CIDR such as 10.96.0.10/32",
			"spec: {egress: {rules: [{namespaceSelector: {}, cidrs: " + list(17, "10.0.%d.0/24") + "}]}}":             "spec.egress.rules[0].cidrs … must have at most 16 items",
			"spec: {egress: {rules: [{namespaceSelector: {}, cidrs: [10.0.0.0/8], ports: []}]}}":                      "spec.egress.rules[0].ports … should have at least 1 items",
			"spec: {egress: {rules: [{namespaceSelector: {}, cidrs: [10.0.0.0/8], ports: [0]}]}}":                     "spec.egress.rules[0].ports[0] … should be greater than or equal to 1",
			"spec: {egress: {rules: [{namespaceSelector: {}, cidrs: [10.0.0.0/8], ports: [65536]}]}}":                 "spec.egress.rules[0].ports[0] … should be less than or equal to 65535",
			"spec: {egress: {rules: [{namespaceSelector: {}, cidrs: [10.0.0.0/8], ports: " + list(17, "%d1") + "}]}}": "spec.egress.rules[0].ports … must have at most 16 items",
		},
	},
	"the least version of TLS": {
		good: []string{"spec: {egress: {minTLSVersion: VersionTLS13}}"},
		bad:  map[string]string{"spec: {egress: {minTLSVersion: VersionTLS10}}": "spec.egress.minTLSVersion: Unsupported value"},
	},
	"allowedPorts": {
		good: []string{"spec: {egress: {allowedPorts: [25, 853]}}"},
		bad: map[string]string{
			"spec: {egress: {allowedPorts: []}}":                      "spec.egress.allowedPorts … should have at least 1 items",
			"spec: {egress: {allowedPorts: " + list(65, "%d1") + "}}": "spec.egress.allowedPorts … must have at most 64 items",
			"spec: {egress: {allowedPorts: [65536]}}":                 "spec.egress.allowedPorts[0] … should be less than or equal to 65535",
			"spec: {egress: {allowedPorts: [0]}}":                     "spec.egress.allowedPorts[0] … should be greater than or equal to 1",
			"spec: {egress: {allowedPorts: [25, 25]}}":                "spec.egress.allowedPorts[1]: Duplicate value",
		},
	},
	"allowedCIDRs": cidrRules("spec.egress.allowedCIDRs"),
	"deniedCIDRs":  cidrRules("spec.egress.deniedCIDRs"),
	"delivered":    durationRules("spec.retention.delivered", "spec: {retention: {delivered: %s}}", "1h", "2160h", "36h"),
	"failed":       durationRules("spec.retention.failed", "spec: {retention: {failed: %s}}", "1h", "2160h", "36h"),
	"eventResources": {
		good: []string{
			"spec: {eventResources: [claim, lab-order, x12]}", "spec: {eventResources: " + list(100, "r%d") + "}",
			fmt.Sprintf("spec: {eventResources: [%s]}", strings.Repeat("x", 63)),
		},
		bad: map[string]string{
			"spec: {eventResources: []}":                                         "spec.eventResources … should have at least 1 items",
			"spec: {eventResources: " + list(101, "r%d") + "}":                   "spec.eventResources … must have at most 100 items",
			"spec: {eventResources: [claim, claim]}":                             "spec.eventResources[1]: Duplicate value",
			"spec: {eventResources: ['']}":                                       "spec.eventResources[0] … should be at least 1 chars long",
			"spec: {eventResources: [Claim]}":                                    "spec.eventResources[0] … must be lower-case letters, digits and inner dashes, such as lab-order",
			"spec: {eventResources: [eventflow]}":                                "spec.eventResources[0] … must be lower-case letters, digits and inner dashes, such as lab-order, and not eventflow",
			"spec: {eventResources: [claim.created]}":                            "spec.eventResources[0] … must be lower-case letters, digits and inner dashes, such as lab-order",
			fmt.Sprintf("spec: {eventResources: [%s]}", strings.Repeat("x", 64)): "spec.eventResources[0] … may not be more than 63 bytes",
		},
	},
	"tolerations": {
		good: []string{"spec: {template: {tolerations: [{key: phi, operator: Exists}]}}"},
		bad: map[string]string{
			"spec: {template: {tolerations: []}}":                               "spec.template.tolerations … should have at least 1 items",
			"spec: {template: {tolerations: " + list(65, "{key: 'k%d'}") + "}}": "spec.template.tolerations … must have at most 64 items",
		},
	},
	"deliveries API": {
		good: []string{"spec: {deliveriesAPI: {enabled: true}}", "spec: {deliveriesAPI: {}, ingest: {authentication: None}}"},
		bad: map[string]string{
			"spec: {deliveriesAPI: {enabled: true}, ingest: {authentication: None}}": "spec: Invalid value … the deliveries API asks the API server who may read: it needs spec.ingest.authentication Kubernetes",
		},
	},
	"access mode": {
		good: []string{"spec: {store: {embedded: {accessMode: ReadWriteOnce}}}", "spec: {store: {embedded: {accessMode: ReadWriteOncePod}}}"},
		bad:  map[string]string{"spec: {store: {embedded: {accessMode: ReadWriteMany}}}": "spec.store.embedded.accessMode: Unsupported value"},
	},
}

func cidrRules(path string) rule {
	field := path[strings.LastIndex(path, ".")+1:]
	set := func(value string) string { return fmt.Sprintf("spec: {egress: {%s: %s}}", field, value) }
	return rule{
		good: []string{set("[10.96.0.0/12, 'fd00::/8', 127.0.0.1/32]"), set(list(64, "10.0.%d.0/24"))},
		bad: map[string]string{
			set("[]"):                                  path + " … should have at least 1 items",
			set(list(65, "10.0.%d.0/24")):              path + " … must have at most 64 items",
			set("[10.0.0.0/8, 10.0.0.0/8]"):            path + "[1]: Duplicate value",
			set("['']"):                                path + "[0] … should be at least 1 chars long",
			set("[10.0.0.1]"):                          path + "[0] … must be a CIDR such as 10.96.0.0/12",
			set("[10.0.0.0/33]"):                       path + "[0] … must be a CIDR such as 10.96.0.0/12",
			set("['" + strings.Repeat("1", 44) + "']"): path + "[0] … may not be more than 43 bytes",
		},
	}
}

func init() { maps.Copy(dispatcherRules, templateRules) }

// templateRules are of what is laid over a dispatcher's pods and its Service.
var templateRules = map[string]rule{
	"labels": {
		good: []string{"spec: {template: {labels: {team: platform, app.kubernetes.io/part-of: hooks}}}"},
		bad: map[string]string{
			"spec: {template: {labels: {app.kubernetes.io/instance: other}}}":    "spec.template.labels … must not set a label by which the dispatcher's pods are found: app.kubernetes.io/name, component, instance, managed-by, webhooks.clinikapi.com/…",
			"spec: {template: {labels: {app.kubernetes.io/name: other}}}":        "spec.template.labels … must not set a label",
			"spec: {template: {labels: {app.kubernetes.io/component: other}}}":   "spec.template.labels … must not set a label",
			"spec: {template: {labels: {app.kubernetes.io/managed-by: other}}}":  "spec.template.labels … must not set a label",
			"spec: {template: {labels: {webhooks.clinikapi.com/dispatcher: x}}}": "spec.template.labels … must not set a label",
		},
	},
	"annotations": {
		good: []string{"spec: {template: {annotations: {sidecar.istio.io/inject: 'false'}, serviceAccountAnnotations: {eks.amazonaws.com/role-arn: 'arn:aws:iam::1:role/x'}}}"},
		bad:  map[string]string{"spec: {template: {annotations: {webhooks.clinikapi.com/connection-version: x}}}": "spec.template.annotations … must not set an annotation of the manager's own: webhooks.clinikapi.com/…"},
	},
	"priority class": {
		good: []string{"spec: {template: {priorityClassName: system-cluster-critical}}"},
		bad: map[string]string{
			"spec: {template: {priorityClassName: ''}}":                                        "spec.template.priorityClassName … should be at least 1 chars long",
			fmt.Sprintf("spec: {template: {priorityClassName: %s}}", strings.Repeat("x", 254)): "spec.template.priorityClassName … may not be more than 253 bytes",
		},
	},
	"spread": {
		good: []string{"spec: {template: {topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]}}"},
		bad: map[string]string{
			"spec: {template: {topologySpreadConstraints: []}}": "spec.template.topologySpreadConstraints … should have at least 1 items",
			"spec: {template: {topologySpreadConstraints: " + list(17, "{maxSkew: 1, topologyKey: z%d, whenUnsatisfiable: DoNotSchedule}") + "}}": "spec.template.topologySpreadConstraints … must have at most 16 items",
		},
	},
	"pull secrets": {
		good: []string{"spec: {template: {imagePullSecrets: [{name: a}, {name: b}]}}"},
		bad: map[string]string{
			"spec: {template: {imagePullSecrets: []}}":                              "spec.template.imagePullSecrets … should have at least 1 items",
			"spec: {template: {imagePullSecrets: " + list(17, "{name: s%d}") + "}}": "spec.template.imagePullSecrets … must have at most 16 items",
			"spec: {template: {imagePullSecrets: [{name: a}, {name: a}]}}":          "spec.template.imagePullSecrets[1]: Duplicate value",
		},
	},
	"env": {
		good: []string{"spec: {template: {env: [{name: GOMEMLIMIT, value: 1GiB}, {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}, {name: EVENTFLOW_TLS_CERT_FILE, value: /tls/tls.crt}]}}"},
		bad: map[string]string{
			"spec: {template: {env: []}}":                                         "spec.template.env … should have at least 1 items",
			"spec: {template: {env: " + list(65, "{name: E%d, value: x}") + "}}":  "spec.template.env … must have at most 64 items",
			"spec: {template: {env: [{name: A, value: x}, {name: A, value: y}]}}": "spec.template.env[1]: Duplicate value",
			"spec: {template: {env: [{name: EVENTFLOW_STORE, value: x}]}}":        "spec.template.env … must not set what tells the dispatcher where its store, its routing table and its API server are: EVENTFLOW_STORE, EVENTFLOW_STATE_DIR, EVENTFLOW_ROUTES, EVENTFLOW_KUBECONFIG, PGSSLMODE, PGSSLROOTCERT, KUBERNETES_SERVICE_…",
			"spec: {template: {env: [{name: PGSSLMODE, value: disable}]}}":        "spec.template.env … must not set what tells the dispatcher",
		},
	},
	"env from": {
		good: []string{"spec: {template: {envFrom: [{configMapRef: {name: proxy}}, {prefix: A_, secretRef: {name: b}}]}}"},
		bad: map[string]string{
			"spec: {template: {envFrom: []}}":                                              "spec.template.envFrom … should have at least 1 items",
			"spec: {template: {envFrom: " + list(17, "{configMapRef: {name: c%d}}") + "}}": "spec.template.envFrom … must have at most 16 items",
		},
	},
	"volumes": {
		good: []string{
			"spec: {template: {volumes: [{name: tls, secret: {secretName: tls}}, {name: c, configMap: {name: c}}, {name: e, emptyDir: {}}, {name: p, persistentVolumeClaim: {claimName: p}}]}}",
			"spec: {template: {volumes: [{name: v, csi: {driver: secrets-store.csi.k8s.io}}, {name: t, projected: {sources: [{serviceAccountToken: {path: token}}]}}]}}",
			fmt.Sprintf("spec: {template: {volumes: [{name: %s, emptyDir: {}}]}}", strings.Repeat("x", 63)),
		},
		bad: map[string]string{
			"spec: {template: {volumes: []}}":                                                               "spec.template.volumes … should have at least 1 items",
			"spec: {template: {volumes: " + list(17, "{name: v%d, emptyDir: {}}") + "}}":                    "spec.template.volumes … must have at most 16 items",
			"spec: {template: {volumes: [{name: a, emptyDir: {}}, {name: a, emptyDir: {}}]}}":               "spec.template.volumes[1]: Duplicate value",
			"spec: {template: {volumes: [{name: store, emptyDir: {}}]}}":                                    "spec.template.volumes … must not have the name of one of the dispatcher's own volumes: store, state, database-ca, ingest-certificate, ingest-client-ca",
			"spec: {template: {volumes: [{name: v}]}}":                                                      "spec.template.volumes[0]: Invalid value … exactly one of the fields in [configMap secret emptyDir projected csi persistentVolumeClaim] must be set",
			"spec: {template: {volumes: [{name: v, emptyDir: {}, secret: {secretName: a}}]}}":               "spec.template.volumes[0]: Invalid value … exactly one of the fields in",
			"spec: {template: {volumes: [{name: v, hostPath: {path: /}}]}}":                                 `unknown field "spec.template.volumes[0].hostPath"`,
			"spec: {template: {volumes: [{emptyDir: {}}]}}":                                                 "spec.template.volumes[0].name: Required value",
			"spec: {template: {volumes: [{name: '', emptyDir: {}}]}}":                                       "spec.template.volumes[0].name … should be at least 1 chars long",
			fmt.Sprintf("spec: {template: {volumes: [{name: %s, emptyDir: {}}]}}", strings.Repeat("x", 64)): "spec.template.volumes[0].name … may not be more than 63 bytes",
		},
	},
	"mounts": {
		good: []string{"spec: {template: {volumeMounts: [{name: tls, mountPath: /tls}, {name: ca, mountPath: /etc/ssl/certs, readOnly: true}]}}"},
		bad: map[string]string{
			"spec: {template: {volumeMounts: []}}":                                                                    "spec.template.volumeMounts … should have at least 1 items",
			"spec: {template: {volumeMounts: " + list(17, "{name: v, mountPath: /v%d}") + "}}":                        "spec.template.volumeMounts … must have at most 16 items",
			"spec: {template: {volumeMounts: [{name: a, mountPath: /a}, {name: b, mountPath: /a}]}}":                  "spec.template.volumeMounts[1]: Duplicate value",
			"spec: {template: {volumeMounts: [{name: a, mountPath: /data}]}}":                                         "spec.template.volumeMounts … must not lie on or mount one of the dispatcher's own volumes: store, state, database-ca, ingest-certificate, ingest-client-ca, and /, /data, /state, /etc/eventflow/database-ca, /etc/eventflow/ingest, /etc/eventflow/client-ca, /var/run/secrets/kubernetes.io",
			"spec: {template: {volumeMounts: [{name: a, mountPath: /data/wal}]}}":                                     "spec.template.volumeMounts … must not lie on",
			"spec: {template: {volumeMounts: [{name: a, mountPath: /}]}}":                                             "spec.template.volumeMounts … must not lie on",
			"spec: {template: {volumeMounts: [{name: store, mountPath: /mine}]}}":                                     "spec.template.volumeMounts … must not lie on",
			"spec: {template: {volumeMounts: [{name: a, mountPath: /var/run/secrets/kubernetes.io/serviceaccount}]}}": "spec.template.volumeMounts … must not lie on",
		},
	},
	"security context": {
		good: []string{"spec: {template: {securityContext: {}}}", "spec: {template: {securityContext: {runAsUser: 1000, fsGroup: 2000, runAsNonRoot: true}}}"},
		bad: map[string]string{
			"spec: {template: {securityContext: {runAsNonRoot: false}}}": "spec.template.securityContext … the dispatcher never runs as root: leave runAsNonRoot out",
			"spec: {template: {securityContext: {runAsUser: 0}}}":        "spec.template.securityContext … the dispatcher never runs as root: name another user than 0",
		},
	},
	"service": {
		good: []string{"spec: {service: {type: LoadBalancer, annotations: {internal: 'true'}, ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv6, IPv4]}}"},
		bad: map[string]string{
			"spec: {service: {type: ExternalName}}":             "spec.service.type: Unsupported value",
			"spec: {service: {ipFamilyPolicy: Dual}}":           "spec.service.ipFamilyPolicy: Unsupported value",
			"spec: {service: {ipFamilies: []}}":                 "spec.service.ipFamilies … should have at least 1 items",
			"spec: {service: {ipFamilies: [IPv4, IPv6, IPv4]}}": "spec.service.ipFamilies … must have at most 2 items",
			"spec: {service: {ipFamilies: [IPv5]}}":             "spec.service.ipFamilies[0]: Unsupported value",
		},
	},
}

var dispatcherStatusRules = map[string]rule{
	"observedGeneration": {
		good: []string{"status: {observedGeneration: 1}", "status: {observedGeneration: -1}"},
		bad:  map[string]string{"status: {observedGeneration: -2}": "status.observedGeneration … should be greater than or equal to -1"},
	},
	"conditions": conditionRules,
	"settingsGeneration": {
		good: []string{"status: {settingsGeneration: 1}"},
		bad:  map[string]string{"status: {settingsGeneration: 0}": "status.settingsGeneration … should be greater than or equal to 1"},
	},
	"programmedRevision": {
		good: []string{"status: {programmedRevision: 1}"},
		bad:  map[string]string{"status: {programmedRevision: 0}": "status.programmedRevision … should be greater than or equal to 1"},
	},
	"largestTenants": {
		good: []string{
			"status: {largestTenants: [{namespace: clinic-a, pendingDeliveries: 5, pendingBytes: 1000}]}",
			"status: {largestTenants: [{namespace: clinic-a, pendingDeliveries: 5, pendingBytes: 1000, scheduledDeliveries: 4}]}",
		},
		bad: map[string]string{
			"status: {largestTenants: []}":                                             "status.largestTenants … should have at least 1 items",
			"status: {largestTenants: [" + strings.Join(tenantUsages(11), ", ") + "]}": "status.largestTenants … must have at most 10 items",
			"status: {largestTenants: [{namespace: a, pendingDeliveries: 1, pendingBytes: 1}, {namespace: a, pendingDeliveries: 1, pendingBytes: 1}]}": "status.largestTenants[1] … Duplicate value",
			"status: {largestTenants: [{pendingDeliveries: 1, pendingBytes: 1}]}":                                                                      "status.largestTenants[0].namespace … Required value",
			"status: {largestTenants: [{namespace: a, pendingDeliveries: 1}]}":                                                                         "status.largestTenants[0].pendingBytes … Required value",
			"status: {largestTenants: [{namespace: a, pendingBytes: 1}]}":                                                                              "status.largestTenants[0].pendingDeliveries … Required value",
			"status: {largestTenants: [{namespace: '', pendingDeliveries: 1, pendingBytes: 1}]}":                                                       "status.largestTenants[0].namespace … should be at least 1 chars long",
			"status: {largestTenants: [{namespace: " + strings.Repeat("x", 64) + ", pendingDeliveries: 1, pendingBytes: 1}]}":                          "status.largestTenants[0].namespace … may not be more than 63 bytes",
			"status: {largestTenants: [{namespace: a, pendingDeliveries: 1, pendingBytes: 0}]}":                                                        "status.largestTenants[0].pendingBytes … should be greater than or equal to 1",
			"status: {largestTenants: [{namespace: a, pendingDeliveries: 1, pendingBytes: 1, scheduledDeliveries: 0}]}":                                "status.largestTenants[0].scheduledDeliveries … should be greater than or equal to 1",
			"status: {largestTenants: [{namespace: a, pendingDeliveries: 0, pendingBytes: 1}]}":                                                        "status.largestTenants[0].pendingDeliveries … should be greater than or equal to 1",
		},
	},
	"version": {
		good: []string{"status: {version: v1.2.3}"},
		bad: map[string]string{
			"status: {version: ''}": "status.version … should be at least 1 chars long",
			fmt.Sprintf("status: {version: %s}", strings.Repeat("x", 129)): "status.version … may not be more than 128 bytes",
		},
	},
	"store": {
		good: []string{"status: {store: {reason: StoreReady}}"},
		bad: map[string]string{
			"status: {store: {}}":           "status.store.reason: Required value",
			"status: {store: {reason: ''}}": "status.store.reason … should be at least 1 chars long",
			fmt.Sprintf("status: {store: {reason: %s}}", strings.Repeat("x", 65)): "status.store.reason … may not be more than 64 bytes",
		},
	},
	"volume": {
		good: []string{"status: {volume: {id: a, use: Unused}}", "status: {volume: {id: a, use: Used}}", "status: {volume: {id: " + strings.Repeat("x", 64) + ", use: Abandoned}}"},
		bad: map[string]string{
			"status: {volume: {use: Used}}":                                      "status.volume.id: Required value",
			"status: {volume: {id: a}}":                                          "status.volume.use: Required value",
			"status: {volume: {id: '', use: Used}}":                              "status.volume.id … should be at least 1 chars long",
			"status: {volume: {id: " + strings.Repeat("x", 65) + ", use: Used}}": "status.volume.id … may not be more than 64 bytes",
			"status: {volume: {id: a, use: Lost}}":                               "status.volume.use: Unsupported value",
		},
	},
	"publishCA": {
		good: []string{"status: {publishCA: x}", fmt.Sprintf("status: {publishCA: %s}", strings.Repeat("x", 65536))},
		bad: map[string]string{
			"status: {publishCA: ''}": "status.publishCA … should be at least 1 chars long",
			fmt.Sprintf("status: {publishCA: %s}", strings.Repeat("x", 65537)): "status.publishCA … may not be more than 65536 bytes",
		},
	},
	"publishURL": {
		good: []string{"status: {publishURL: 'http://eventflow-dispatcher-default.eventflow-system.svc'}"},
		bad: map[string]string{
			"status: {publishURL: ''}":                                        "status.publishURL … should be at least 1 chars long",
			fmt.Sprintf("status: {publishURL: %s}", strings.Repeat("x", 513)): "status.publishURL … may not be more than 512 bytes",
		},
	},
	"replicas": {
		good: []string{"status: {replicas: 0}", "status: {replicas: 101}"}, // a rolling update has one more
		bad:  map[string]string{"status: {replicas: -1}": "status.replicas … should be greater than or equal to 0"},
	},
	"selector": {
		good: []string{"status: {selector: 'app.kubernetes.io/instance=default,app.kubernetes.io/name=eventflow'}"},
		bad: map[string]string{
			"status: {selector: ''}": "status.selector … should be at least 1 chars long",
			fmt.Sprintf("status: {selector: %s}", strings.Repeat("x", 513)): "status.selector … may not be more than 512 bytes",
		},
	},
	"subscriptions": {
		good: []string{"status: {subscriptions: 0}"},
		bad:  map[string]string{"status: {subscriptions: -1}": "status.subscriptions … should be greater than or equal to 0"},
	},
}

const storeStays = "<nil>: Invalid value … the kind of store is immutable: events and deliveries stay in the store that accepted them; create another WebhookDispatcher with the other kind, and name it in new subscriptions"

// embeddedTransitions are of a stored dispatcher with the embedded store.
var embeddedTransitions = map[string]rule{
	"store stays": {
		good: []string{"spec: {store: {embedded: {size: 20Gi}}}", "spec: {store: null}", "spec: null"},
		bad:  map[string]string{"spec: {store: {embedded: null, postgres: {connectionSecretRef: {name: db, key: uri}}}}": storeStays},
	},
}

// encryptedTransitions are of a stored dispatcher that encrypts.
var encryptedTransitions = map[string]rule{
	"encryption stays": {
		good: []string{"spec: {encryption: {keySecretRef: {name: other}}}", "spec: {encryption: {mode: Enabled}}"},
		bad: map[string]string{
			"spec: {encryption: {mode: Disabled}}": "spec.encryption … cannot be disabled again: what is stored could not be read any more",
			"spec: {encryption: null}":             "spec.encryption … cannot be disabled again: what is stored could not be read any more",
		},
	},
}

// unusedTransitions are of a stored dispatcher whose embedded store never held an event.
var unusedTransitions = map[string]rule{
	"store may be another": {
		good: []string{
			"spec: {store: {embedded: {size: 1Gi, storageClassName: other}}}",
			"spec: {store: {embedded: null, postgres: {connectionSecretRef: {name: db, key: uri}}}}",
		},
		bad: map[string]string{"spec: {store: {postgres: {connectionSecretRef: {name: db, key: uri}}}}": "exactly one of the fields in [embedded postgres] must be set"},
	},
}

// setBackTransitions are of a stored dispatcher that names a database although events are on its volume.
var setBackTransitions = map[string]rule{
	"store may be set back": {
		good: []string{"spec: {store: {postgres: null, embedded: {}}}", "spec: {store: null}"},
		bad:  map[string]string{"spec: {store: {embedded: {}}}": "exactly one of the fields in [embedded postgres] must be set"},
	},
}

// postgresTransitions are of a stored dispatcher with a database.
var postgresTransitions = map[string]rule{
	"store stays": {
		good: []string{
			"spec: {replicas: 3}",
			"spec: {store: {postgres: {connectionSecretRef: {name: other}, caSecretRef: {name: ca, key: ca.crt}}}}",
		},
		bad: map[string]string{
			"spec: {store: {postgres: null, embedded: {}}}": storeStays,
			"spec: {store: null}":                           storeStays,
			"spec: null":                                    storeStays,
		},
	},
}

// tenantUsages are n items of status.largestTenants.
func tenantUsages(n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("{namespace: clinic-%d, pendingDeliveries: 1, pendingBytes: 1}", i))
	}
	return all
}
