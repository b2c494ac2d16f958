// SPDX-License-Identifier: Apache-2.0

// The peer of bench-netstack: wireguard-go over gVisor's stack, with the two kinds of
// port forward that our userspace mode has. Reads one JSON object from standard input.
package main

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/netip"
	"os"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/netstack"
)

type configuration struct {
	Address string            `json:"address"`
	MTU     int               `json:"mtu"`
	UAPI    string            `json:"uapi"`
	Listen  map[string]string `json:"listen"` // host address -> address in the tunnel
	Accept  map[string]string `json:"accept"` // address in the tunnel -> host address
}

type dialler func(address string) (net.Conn, error)

// halfCloser is what TCP connections of either side are.
type halfCloser interface{ CloseWrite() error }

func copyHalf(to, from net.Conn) {
	io.Copy(to, from)
	if half, ok := to.(halfCloser); ok {
		half.CloseWrite()
	}
}

func join(near net.Conn, dial dialler, target string) {
	defer near.Close()
	far, err := dial(target)
	if err != nil {
		return
	}
	defer far.Close()
	done := make(chan struct{})
	go func() {
		copyHalf(far, near)
		close(done)
	}()
	copyHalf(near, far)
	<-done
}

func serve(listener net.Listener, dial dialler, target string) {
	for {
		near, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go join(near, dial, target)
	}
}

func main() {
	var c configuration
	if err := json.NewDecoder(os.Stdin).Decode(&c); err != nil {
		log.Fatal(err)
	}
	own := []netip.Addr{netip.MustParseAddr(c.Address)}
	tun, stack, err := netstack.CreateNetTUN(own, nil, c.MTU)
	if err != nil {
		log.Fatal(err)
	}
	wg := device.NewDevice(tun, conn.NewDefaultBind(), device.NewLogger(device.LogLevelError, ""))
	if err := wg.IpcSet(c.UAPI); err != nil {
		log.Fatal(err)
	}
	if err := wg.Up(); err != nil {
		log.Fatal(err)
	}
	inside := func(address string) (net.Conn, error) {
		return stack.DialContext(context.Background(), "tcp", address)
	}
	outside := func(address string) (net.Conn, error) { return net.Dial("tcp", address) }
	for near, target := range c.Listen {
		listener, err := net.Listen("tcp", near)
		if err != nil {
			log.Fatal(err)
		}
		go serve(listener, inside, target)
	}
	for near, target := range c.Accept {
		address, err := net.ResolveTCPAddr("tcp", near)
		if err != nil {
			log.Fatal(err)
		}
		listener, err := stack.ListenTCP(address)
		if err != nil {
			log.Fatal(err)
		}
		go serve(listener, outside, target)
	}
	select {}
}
