// The smallest program that a pod can run: it waits until it is told to end. Called `first ADDRESS` it connects there,
// again and again, until a byte has come, says when that was, and waits then.
package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const (
	retry   = 20 * time.Millisecond
	patient = 2 * time.Second
)

func firstByte(address string) (tries int) {
	for tries = 1; ; tries++ {
		connection, err := net.DialTimeout("tcp", address, patient)
		if err == nil {
			connection.SetDeadline(time.Now().Add(patient))
			connection.Write([]byte("x"))
			count, _ := connection.Read(make([]byte, 1))
			connection.Close()
			if count == 1 {
				return tries
			}
		}
		time.Sleep(retry)
	}
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "first" {
		startedAt := time.Now().UnixMilli()
		tries := firstByte(os.Args[2])
		fmt.Printf("{\"startedAtMs\":%d,\"byteAtMs\":%d,\"tries\":%d}\n", startedAt, time.Now().UnixMilli(), tries)
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	<-end
}
