package storetest

var retentionTests = map[string]func(*fixture){}
