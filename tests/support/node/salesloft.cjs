// The package `salesloft` has its base URL in its code: https://api.salesloft.com/v2 (dist/Resource.js), and no option
// for it. It sends everything through the default instance of axios, and axios documents interceptors for that: one
// here turns the origin of each request to the proxy. Not a line of the package is changed.
// It cannot be kept from sending `Authorization: Bearer ` and its key: the proxy drops that and puts its own there.
'use strict'

const [, , proxy, key] = process.argv
const { createRequire } = require('node:module')
const { SalesLoft } = require('salesloft')
// Its own axios, wherever npm put that.
const axios = createRequire(require.resolve('salesloft'))('axios')

axios.interceptors.request.use((config) => {
  const { pathname, search } = new URL(config.url)
  return { ...config, url: proxy + pathname + search }
})

async function main() {
  const client = new SalesLoft(key)
  const me = await client.Me.list()
  const people = await client.People.list({ per_page: 2, ids: [1, 2, 3] })
  const created = await client.People.create({ email_address: 'ada@salesloft.example', first_name: 'Ada' })
  const updated = await client.People.update(created.id, { title: 'Countess' })
  await client.People.delete(created.id)
  const missing = await client.People.fetch(created.id).catch((error) => error.response.status)
  const invalid = await client.Accounts.create({ name: 'No Domain Inc.' }).catch((error) => JSON.parse(error.message))
  console.log(JSON.stringify({ me, people, created, updated, missing, invalid }))
}

main().catch((error) => {
  console.error(error.stack)
  process.exitCode = 1
})
