package v1alpha1_test

import (
	"fmt"
	"maps"
	"strings"
)

// list is a YAML list of n items, each with its index in format.
func list(n int, format string) string {
	items := make([]string, n)
	for i := range items {
		items[i] = fmt.Sprintf(format, i)
	}
	return "[" + strings.Join(items, ", ") + "]"
}

// secretKeyRules are those of a SecretKeyReference at path; patch sets it.
func secretKeyRules(path, patch string, bad map[string]string) rule {
	set := func(name, key string) string {
		return fmt.Sprintf(patch, fmt.Sprintf("{name: %s, key: %s}", name, key))
	}
	r := rule{
		good: []string{
			set("billing-key", "current"), set("billing.v2", "a_B-c.d"),
			set(strings.Repeat("x", 253), strings.Repeat("k", 253)),
		},
		bad: map[string]string{
			fmt.Sprintf(patch, "{name: null, key: current}"):     path + ".name: Required value",
			fmt.Sprintf(patch, "{name: billing-key, key: null}"): path + ".key: Required value",
			set("''", "current"):                                 path + ".name … should be at least 1 chars long",
			set("Billing_Key", "current"):                        path + ".name … must be the name of a Secret: lower-case letters, digits, dashes and dots",
			set(strings.Repeat("x", 254), "current"):             path + ".name … may not be more than 253 bytes",
			set("billing-key", "''"):                             path + ".key … should be at least 1 chars long",
			set("billing-key", "a/b"):                            path + ".key … must be a key of a Secret: letters, digits, dashes, dots and underscores",
			set("billing-key", strings.Repeat("k", 254)):         path + ".key … may not be more than 253 bytes",
		},
	}
	maps.Copy(r.bad, bad)
	return r
}

// hostRules are those of a list of hosts at path; patch sets it.
func hostRules(path, patch string, bad map[string]string) rule {
	set := func(hosts string) string { return fmt.Sprintf(patch, hosts) }
	const refused = " … must be a DNS name such as hooks.example.com, or *.example.com for all below it"
	r := rule{
		good: []string{set("[hooks.example.com, '*.example.com', localhost, 192.0.2.1]"), set(list(64, "h%d.example.com"))},
		bad: map[string]string{
			set("[]"):                                   path + " … should have at least 1 items",
			set(list(65, "h%d.example.com")):            path + " … must have at most 64 items",
			set("[example.com, example.com]"):           path + "[1]: Duplicate value",
			set("['']"):                                 path + "[0] … should be at least 1 chars long",
			set("['" + strings.Repeat("x", 254) + "']"): path + "[0] … may not be more than 253 bytes",
			set("['*']"):                                path + "[0]" + refused,
			set("['*.']"):                               path + "[0]" + refused,
			set("[hooks.*.com]"):                        path + "[0]" + refused,
			set("['*example.com']"):                     path + "[0]" + refused,
			set("[Hooks.example.com]"):                  path + "[0]" + refused,
			set("['https://example.com']"):              path + "[0]" + refused,
			set("['example.com:443']"):                  path + "[0]" + refused,
		},
	}
	maps.Copy(r.bad, bad)
	return r
}

// serviceRules are those of spec.serviceRef.
func serviceRules() rule {
	set := func(fields string) string { return fmt.Sprintf("spec: {url: null, serviceRef: {%s}}", fields) }
	return rule{
		good: []string{
			set("name: receiver, port: 8443"), set("name: receiver, port: 1, path: '/in/of%20mine?a=b&c=@', scheme: HTTP"),
			set("name: receiver, port: 65535, path: /" + strings.Repeat("x", 1023) + ", scheme: HTTPS"), set("name: " + strings.Repeat("x", 63) + ", port: 443"),
		},
		bad: map[string]string{
			set("port: 443"):                                                      "spec.serviceRef.name: Required value",
			set("name: receiver"):                                                 "spec.serviceRef.port: Required value",
			set("name: '', port: 443"):                                            "spec.serviceRef.name … should be at least 1 chars long",
			set("name: a.b, port: 443"):                                           "spec.serviceRef.name … must be the name of a Service: lower-case letters, digits and dashes",
			set("name: " + strings.Repeat("x", 64) + ", port: 443"):               "spec.serviceRef.name … may not be more than 63 bytes",
			set("name: receiver, port: 0"):                                        "spec.serviceRef.port … should be greater than or equal to 1",
			set("name: receiver, port: 65536"):                                    "spec.serviceRef.port … should be less than or equal to 65535",
			set("name: receiver, port: 443, path: ''"):                            "spec.serviceRef.path … should be at least 1 chars long",
			set("name: receiver, port: 443, path: in"):                            "spec.serviceRef.path … must begin with a slash, and have no character that a URL escapes",
			set("name: receiver, port: 443, path: '@evil.example/'"):              "spec.serviceRef.path … must begin with a slash, and have no character that a URL escapes",
			set("name: receiver, port: 443, path: '/a b'"):                        "spec.serviceRef.path … must begin with a slash, and have no character that a URL escapes",
			set("name: receiver, port: 443, path: '/%zz'"):                        "spec.serviceRef.path … must begin with a slash, and have no character that a URL escapes",
			set("name: receiver, port: 443, path: '/in#top'"):                     "spec.serviceRef.path … must begin with a slash, and have no character that a URL escapes",
			set("name: receiver, port: 443, path: /" + strings.Repeat("x", 1024)): "spec.serviceRef.path … may not be more than 1024 bytes",
			set("name: receiver, port: 443, scheme: https"):                       "spec.serviceRef.scheme: Unsupported value",
		},
	}
}

// ofConfigMap are the rules of a Secret's key for one of a ConfigMap.
func ofConfigMap(r rule) rule {
	for patch, message := range r.bad {
		r.bad[patch] = strings.ReplaceAll(message, " Secret:", " ConfigMap:")
	}
	return r
}

// durationRules are those of a duration from low to high at path; patch sets it.
func durationRules(path, patch, low, high, example string) rule {
	set := func(value string) string { return fmt.Sprintf(patch, value) }
	refused := fmt.Sprintf("%s … must be a duration from %s to %s, written like %s", path, low, high, example)
	return rule{
		good: []string{set(low), set(high), set(example), set("'" + low + "1ms'")},
		bad: map[string]string{
			set("999ms"):                         refused,
			set("'-" + low + "'"):                refused,
			set("0s"):                            refused,
			set("'" + high + "1ms'"):             refused,
			set("1d"):                            refused,
			set("soon"):                          refused,
			set("''"):                            refused,
			set("'30'"):                          refused,
			set("30"):                            path + " … must be of type string",
			set(strings.Repeat("1s", 16) + "1s"): path + " … may not be more than 32 bytes",
		},
	}
}

// integerRules are those of an integer from low to high at path; patch sets it.
func integerRules(path, patch string, low, high int) rule {
	return rule{
		good: []string{fmt.Sprintf(patch, low), fmt.Sprintf(patch, high)},
		bad: map[string]string{
			fmt.Sprintf(patch, low-1):  fmt.Sprintf("%s … should be greater than or equal to %d", path, low),
			fmt.Sprintf(patch, high+1): fmt.Sprintf("%s … should be less than or equal to %d", path, high),
		},
	}
}

// quantityRules are those of a quantity of at least low at path; patch sets it.
func quantityRules(path, patch, low, below string) rule {
	set := func(value string) string { return fmt.Sprintf(patch, value) }
	return rule{
		good: []string{set(low), set("10Gi"), set("1099511627776")},
		bad: map[string]string{
			set(below):  path + " … must be at least " + low,
			set("-1Gi"): path + " … must be at least " + low,
			set("big"):  path + " … should match '^(\\+|-)?(([0-9]+(\\.[0-9]*)?)|(\\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\\+|-)?(([0-9]+(\\.[0-9]*)?)|(\\.[0-9]+))))?$'",
		},
	}
}

// tenantLimitRules are those of a tenant's limits at path; patch sets one.
func tenantLimitRules(path, patch string) map[string]rule {
	rules := map[string]rule{
		path + ".configurationBytes": quantityRules(path+".configurationBytes", fmt.Sprintf(patch, "configurationBytes: %s"), "1Ki", "1023"),
		path + ".pendingBytes":       quantityRules(path+".pendingBytes", fmt.Sprintf(patch, "pendingBytes: %s"), "1Mi", "1023Ki"),
	}
	for field, most := range map[string]int{
		"subscriptions": 1_000_000, "eventsPerSecond": 1_000_000, "eventsBurst": 1_000_000, "pendingDeliveries": 1_000_000_000, "scheduledDeliveries": 1_000_000_000, "attemptsInFlight": 65536,
	} {
		rules[path+"."+field] = integerRules(path+"."+field, fmt.Sprintf(patch, field+": %d"), 1, most)
	}
	return rules
}

const condition = "{type: %s, status: 'True', reason: Ready, message: '', lastTransitionTime: '2026-01-15T09:15:00Z'}"

var conditionRules = rule{
	good: []string{"status: {conditions: [" + fmt.Sprintf(condition, "Ready") + ", " + fmt.Sprintf(condition, "Accepted") + "]}"},
	bad: map[string]string{
		"status: {conditions: [" + fmt.Sprintf(condition, "Ready") + ", " + fmt.Sprintf(condition, "Ready") + "]}": "status.conditions[1]: Duplicate value",
		"status: {conditions: " + list(17, fmt.Sprintf(condition, "Type%d")) + "}":                                 "status.conditions … must have at most 16 items",
	},
}

// retrying is an item of status.retrying with one field changed, or left out if it is null.
func retrying(changed string) string {
	fields := []string{"deliveryID: dlv_1", "eventType: patient.created", "attempts: 1", "nextAttemptTime: '2026-01-15T09:15:00Z'"}
	name, value, _ := strings.Cut(changed, ":")
	var kept []string
	for _, field := range fields {
		if !strings.HasPrefix(field, name+":") {
			kept = append(kept, field)
		}
	}
	if strings.TrimSpace(value) != "null" {
		kept = append(kept, changed)
	}
	return "{" + strings.Join(kept, ", ") + "}"
}

// signingKeyRules are those of status.signing.
var signingKeyRules = func() rule {
	key := func(id, scheme, since, more string) string {
		return fmt.Sprintf("{id: %s, scheme: %s, sinceTime: %s%s}", id, scheme, since, more)
	}
	const since = "'2026-01-15T09:15:00Z'"
	status := func(keys ...string) string { return "status: {signing: {keys: [" + strings.Join(keys, ", ") + "]}}" }
	a, b, c, d := key("key_a", "v1", since, ""), key("key_b", "v1a", since, ", publicKey: whpk_x"), key("key_c", "v1", since, ""), key("key_d", "v1", since, "")
	return rule{
		good: []string{status(a), status(a, b, c), "status: {signing: {}}"},
		bad: map[string]string{
			status():                             "status.signing.keys … should have at least 1 items",
			status(a, b, c, d):                   "status.signing.keys … must have at most 3 items",
			status(a, a):                         "status.signing.keys[1]: Duplicate value",
			status(key("null", "v1", since, "")): "status.signing.keys[0].id: Required value",
			status(key("''", "v1", since, "")):   "status.signing.keys[0].id … should be at least 1 chars long",
			status(key(strings.Repeat("x", 33), "v1", since, "")):                       "status.signing.keys[0].id … may not be more than 32 bytes",
			status(key("key_a", "null", since, "")):                                     "status.signing.keys[0].scheme: Required value",
			status(key("key_a", "v2", since, "")):                                       "status.signing.keys[0].scheme … Unsupported value",
			status(key("key_a", "v1", "null", "")):                                      "status.signing.keys[0].sinceTime: Required value",
			status(key("key_a", "v1a", since, ", publicKey: ''")):                       "status.signing.keys[0].publicKey … should be at least 1 chars long",
			status(key("key_a", "v1a", since, ", publicKey: "+strings.Repeat("x", 65))): "status.signing.keys[0].publicKey … may not be more than 64 bytes",
		},
	}
}()
