// Shows the API's document. A token that is entered stays in this page, and is gone with it.
"use strict";
if (window.SwaggerUIBundle) {
  window.SwaggerUIBundle({
    url: "/api/v1/openapi.json",
    dom_id: "#page",
    deepLinking: true,
    docExpansion: "list",
    defaultModelsExpandDepth: 0,
    persistAuthorization: false,
    validatorUrl: null,
  });
}
