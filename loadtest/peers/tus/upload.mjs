// Uploads one file in one request: node upload.mjs FILE PORT; prints its URL.
import { createReadStream, statSync } from 'node:fs'
import { Upload } from 'tus-js-client'

const [, , path, port] = process.argv
const upload = new Upload(createReadStream(path), {
  endpoint: `http://127.0.0.1:${port}/files`,
  uploadSize: statSync(path).size,
  retryDelays: [],
  onError: (error) => {
    console.error(String(error))
    process.exit(1)
  },
  onSuccess: () => console.log(upload.url),
})
upload.start()
