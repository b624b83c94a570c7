"""An echo over TCP and UDP at one port of loopback, for tests that kill and freeze it."""
import socket
import sys
import threading

place = ("127.0.0.1", int(sys.argv[1]))
door = socket.create_server(place, backlog=1024)
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(place)


def replies():
    while True:
        data, peer = datagrams.recvfrom(65536)
        datagrams.sendto(data, peer)


def serve(client):
    with client:
        try:
            while data := client.recv(65536):
                client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass


threading.Thread(target=replies, daemon=True).start()
print("ready", file=sys.stderr, flush=True)
while True:
    threading.Thread(target=serve, args=(door.accept()[0],), daemon=True).start()
