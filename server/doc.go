// Package server is the gateway daemon: it holds the sessions of all clients, gives
// them inner addresses, carries their traffic, and answers the command line.
//
// Three things meet here. The shards (internal/shard) drive the IKE engine and tell
// what happens to sessions; the data path (esp/tun) carries packets; the network
// package makes the host forward them. What the daemon adds is policy: who may come
// in, with which address, for how long, and what is told about it.
//
// A session costs one small record here, besides what engine and data path keep.
// There is no goroutine and no buffer per session.
//
// The configuration is one TOML file (Config). Load turns it into Settings, with
// everything checked and every file read; the daemon runs on Settings, and a reload
// that fails leaves the old ones in force.
package server
