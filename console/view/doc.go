// Package view makes pages of objects. It is pure: a page follows from its model alone, and the model is plain values, so that
// hostile names can be tested without a server.
//
// Pages are templ components (github.com/a-h/templ): values are escaped by their place in the page, and a link takes none but
// an address that this package made. Text of tenants passes Shown, which makes visible what nobody sees. There are no inline
// styles and no inline scripts, so the pages work under default-src 'none'. Each action is a plain form; htmx only refreshes.
package view
