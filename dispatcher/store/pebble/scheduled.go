package pebble

import (
	"context"
	"errors"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
)

var errNotBuilt = errors.New("not built")

// Start is in package delivery's Store.
func (s *Store) Start(context.Context, event.DeliveryID) (bool, error) { return false, errNotBuilt }

// SendNow is in package store.
func (s *Store) SendNow(context.Context, string, event.DeliveryID) (delivery.PendingDelivery, error) {
	return delivery.PendingDelivery{}, errNotBuilt
}

// Cancel is in package store.
func (s *Store) Cancel(context.Context, string, event.DeliveryID) error { return errNotBuilt }

// Scheduled is in package store.
func (s *Store) Scheduled(context.Context, event.SubscriptionKey) (int64, time.Time, error) {
	return 0, time.Time{}, errNotBuilt
}
