(function(){
"use strict";
var live=document.getElementById("live"),button=document.getElementById("pause"),say=document.getElementById("say"),state=document.getElementById("age");
var paused=false,headline="",busy=false;
function local(){
 live.querySelectorAll("time").forEach(function(t){
  var d=new Date(t.dateTime);
  if(!isNaN(d))t.textContent=d.toLocaleTimeString();
 });
}
function update(){
 if(paused||busy||document.hidden)return;
 var s=window.getSelection();
 if(s&&!s.isCollapsed)return;
 busy=true;
 fetch(location.pathname,{cache:"no-store"}).then(function(r){return r.text();}).then(function(text){
  var fresh=new DOMParser().parseFromString(text,"text/html").getElementById("live");
  if(!fresh)throw 0;
  var list=live.querySelector(".events"),top=list?list.scrollTop:0;
  live.innerHTML=fresh.innerHTML;
  list=live.querySelector(".events");
  if(list)list.scrollTop=top;
  local();
  state.textContent="live";
  var now=live.querySelector("[data-headline]");
  now=now?now.getAttribute("data-headline"):"";
  if(headline&&now!==headline)say.textContent=now;
  headline=now;
 }).catch(function(){state.textContent="no answer since "+(state.dataset.t||(state.dataset.t=new Date().toLocaleTimeString()));})
 .then(function(){busy=false;if(state.textContent==="live")delete state.dataset.t;});
}
function toggle(){
 paused=!paused;
 button.textContent=paused?"Resume":"Pause";
 button.setAttribute("aria-pressed",paused);
 state.textContent=paused?"paused":"live";
}
button.hidden=false;
button.addEventListener("click",toggle);
document.addEventListener("keydown",function(e){
 if(e.key==="p"&&!e.ctrlKey&&!e.metaKey&&!e.altKey&&e.target===document.body)toggle();
});
document.querySelectorAll(".js").forEach(function(e){e.hidden=false;});
local();
var first=live.querySelector("[data-headline]");
headline=first?first.getAttribute("data-headline"):"";
state.textContent="live";
setInterval(update,2000);
})();
