"""Classes, dictionaries, strings, generators, big integers: what interpreters do all day."""


class Node:
    def __init__(self, key):
        self.key, self.left, self.right = key, None, None

    def insert(self, key):
        node = self
        while True:
            side = "left" if key < node.key else "right"
            child = getattr(node, side)
            if child is None:
                setattr(node, side, Node(key))
                return
            node = child

    def walk(self):
        if self.left:
            yield from self.left.walk()
        yield self.key
        if self.right:
            yield from self.right.walk()


def primes(limit):
    sieve = bytearray([1]) * (limit + 1)
    for i in range(2, int(limit**0.5) + 1):
        if sieve[i]:
            sieve[i * i :: i] = bytes(len(range(i * i, limit + 1, i)))
    return [i for i in range(2, limit + 1) if sieve[i]]


seed, root, words = 12345, Node(1 << 30), {}
for _ in range(8000):
    seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
    root.insert(seed)
    word = format(seed % 4096, "x")
    words[word] = words.get(word, 0) + 1
checksum = 0
for key in root.walk():
    checksum = (checksum * 31 + key) % 1000000007
factorial = 1
for i in range(1, 400):
    factorial *= i
print(checksum, len(primes(120000)), sorted(words.items(), key=lambda w: (-w[1], w[0]))[:10], hex(factorial)[2:40])
