// Serves Kubo's RPC API on a port of this machine, from a repository of its own, without any network:
//     node serve.mjs PORT REPOSITORY
// It prints "ready" once it answers, and ends by SIGTERM.

// Node has it from version 22 on.
Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new Promise((fulfilled, refused) => { resolve = fulfilled; reject = refused })
  return { promise, resolve, reject }
}

const { create } = await import('ipfs-core')
const { HttpApi } = await import('ipfs-http-server')
const [port, repo] = process.argv.slice(2)
const node = await create({
  repo,
  offline: true,
  silent: true,
  init: { emptyRepo: true, profiles: [] },
  config: {
    Addresses: { Swarm: [], API: `/ip4/127.0.0.1/tcp/${port}`, Gateway: '', RPC: '' },
    Bootstrap: [],
    Discovery: { MDNS: { Enabled: false }, webRTCStar: { Enabled: false } }
  }
})
const api = new HttpApi(node)
await api.start()
console.log('ready')
process.on('SIGTERM', async () => { await api.stop(); await node.stop(); process.exit(0) })
