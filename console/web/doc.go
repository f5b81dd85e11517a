// Package web serves the pages over HTTP: guards, routes, and forms.
//
//	request ─► Host ─► origin ─► identity ─► route ─► Backend of this request ─► view
//
// Each guard stands before every route, reads included. Host refuses names that lead here by DNS rebinding. Origin refuses what
// another site sends: writes by http.CrossOriginProtection, reads by Sec-Fetch-Site and Origin. Identity is a cookie that only
// the launch address gives, or the user's own bearer token. A Backend holds clients with the user's rights and lives as long as
// its request. Answers are never stored by browsers, but for the files that are the same for all.
package web
