// Package browser tests the Webhooks panel in Chromium, and makes the pictures of docs/images/console. It is a module of its own,
// so that the product does not link chromedp.
//
// It needs chromium, and axe.min.js of the npm package axe-core in $AXE; without them the tests are skipped.
package browser
